//! What the self-test does to rows of its own, as in PostgreSQL.

use std::time::Duration;

use uuid::Uuid;

use super::{SqliteStore, sql};
use crate::lease::record::Unknown;
use crate::store::selftest::{SelfTest, TestLease};

/// As a taker that does not keep to the rules; tells whether anybody held it.
const STEAL: &str = "
begin immediate;
update lease
set holder = :thief, label = 'selftest: a thief', token = token + 1, revision = revision + 1,
    acquired_at = :now
where name = :lease and released_at is null;
select changes() > 0 as changed;
commit;
";

/// Touches no revision: a step of the clock is no renewal.
const STEP_CLOCK: &str = "
begin immediate;
update lease
set acquired_at = acquired_at - :by, renewed_at = renewed_at - :by, expires_at = expires_at - :by
where name = :lease and released_at is null;
select changes() > 0 as changed;
commit;
";

/// Removes rows and history.
const FORGET: &str = "
begin immediate;
delete from lease where name = :lease;
delete from event where name = :lease;
commit;
";

impl SqliteStore {
    async fn changed(
        &mut self,
        limit: Duration,
        change: &str,
        values: &sql::Values<'_>,
    ) -> Result<bool, Unknown> {
        use crate::store::columns::Columns;
        let rows = self.write(limit, change, values).await?;
        let changed = super::link::last(&rows).and_then(|cells| cells.flag("changed"));
        changed.map_err(|failure| self.given_up(failure))
    }
}

impl SelfTest for SqliteStore {
    async fn steal(&mut self, lease: &TestLease, limit: Duration) -> Result<bool, Unknown> {
        let name = sql::text(lease.name().as_str());
        let thief = sql::text(&Uuid::new_v4().to_string());
        let values: &[(&str, &str)] = &[("lease", &name), ("thief", &thief)];
        self.changed(limit, STEAL, values).await
    }

    async fn step_clock(
        &mut self,
        lease: &TestLease,
        seconds: i64,
        limit: Duration,
    ) -> Result<bool, Unknown> {
        let name = sql::text(lease.name().as_str());
        let by = format!("({})", seconds.saturating_mul(1_000_000));
        let values: &[(&str, &str)] = &[("lease", &name), ("by", &by)];
        self.changed(limit, STEP_CLOCK, values).await
    }

    async fn forget(&mut self, lease: &TestLease, limit: Duration) -> Result<(), Unknown> {
        let name = sql::text(lease.name().as_str());
        self.write(limit, FORGET, &[("lease", &name)])
            .await
            .map(drop)
    }
}
