//! What the self-test does to rows of its own.

use std::time::Duration;

use super::{PgStore, sql};
use crate::lease::record::Unknown;
use crate::store::selftest::{SelfTest, TestLease};

/// As a taker that does not keep to the rules. Zero rows: nobody holds it.
const STEAL: &str = "
update :schema.lease l
set holder = gen_random_uuid(), label = 'selftest: a thief', token = l.token + 1,
    revision = l.revision + 1, acquired_at = clock_timestamp()
where l.name = :lease and l.released_at is null
returning 1;
";

/// Touches no revision: a step of the clock is no renewal.
const STEP_CLOCK: &str = "
update :schema.lease l
set acquired_at = l.acquired_at - :by, renewed_at = l.renewed_at - :by,
    expires_at = l.expires_at - :by
where l.name = :lease and l.released_at is null
returning 1;
";

/// Removes rows and history; that function looks at the name too.
const FORGET: &str = "
select :schema.forget_selftest(:lease);
";

impl SelfTest for PgStore {
    async fn steal(&mut self, lease: &TestLease, limit: Duration) -> Result<bool, Unknown> {
        let name = sql::text(lease.name().as_str());
        let rows = self.write(limit, STEAL, &[("lease", &name)]).await?;
        Ok(!rows.is_empty())
    }

    async fn step_clock(
        &mut self,
        lease: &TestLease,
        seconds: i64,
        limit: Duration,
    ) -> Result<bool, Unknown> {
        let name = sql::text(lease.name().as_str());
        let by = format!("interval '{seconds} seconds'");
        let values = [("lease", name.as_str()), ("by", &by)];
        let rows = self.write(limit, STEP_CLOCK, &values).await?;
        Ok(!rows.is_empty())
    }

    async fn forget(&mut self, lease: &TestLease, limit: Duration) -> Result<(), Unknown> {
        let name = sql::text(lease.name().as_str());
        self.write(limit, FORGET, &[("lease", &name)])
            .await
            .map(drop)
    }
}
