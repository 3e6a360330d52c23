//! Fences tables: a statement trigger on each, and on each of its partitions
//! (a statement that names a partition fires that one's triggers alone).

use std::time::Duration;

use super::fault::Failure;
use super::row::{Cells, Columns};
use super::{PgStore, schema, sql};
use crate::store::admin::{ProtectError, Protection};
use crate::store::deadline::Deadline;

/// The trigger's name.
const TRIGGER: &str = "leasewrap_fence";

/// A table and its partitions: one row each; none where there is no such
/// table. Of kind `own`: leasewrap's.
const FAMILY: &str = "
select t.name, t.kind from (
    select format('%I.%I', s.nspname, c.relname) as name,
        case when s.oid = (select f.pronamespace from pg_proc f where f.oid = to_regproc(:fence_text))
            then 'own' else c.relkind::text end as kind
    from pg_class c join pg_namespace s on s.oid = c.relnamespace
    where c.oid in (
        select to_regclass(:table)::oid
        union select p.relid::oid from pg_partition_tree(to_regclass(:table)) p)
) t order by 1;
";

/// Every table that has our trigger.
const PROTECTED: &str = "
select format('%I.%I', s.nspname, c.relname) as name, c.relkind::text as kind
from pg_trigger t join pg_class c on c.oid = t.tgrelid
join pg_namespace s on s.oid = c.relnamespace
where t.tgfoid = to_regproc(:fence_text) and not t.tgisinternal
order by 1;
";

/// One row where the role is there.
const ROLE: &str = "select 1 as there where to_regrole(quote_ident(:role)) is not null;";

impl PgStore {
    pub(super) async fn protect_call(
        &mut self,
        protection: &Protection,
        limit: Duration,
    ) -> Result<Vec<String>, ProtectError> {
        let deadline = Deadline::new(self.clock, limit);
        for role in &protection.allow_roles {
            let rows = self
                .look(ROLE, &[("role", &sql::text(role))], deadline)
                .await?;
            if rows.is_empty() {
                return Err(ProtectError::NoSuchRole(role.clone()));
            }
        }
        let families = self.families(&protection.tables, deadline).await?;
        let tables = families
            .into_iter()
            .map(|(name, kind)| match kind.as_str() {
                // Ordinary, partitioned and foreign tables.
                "r" | "p" | "f" => Ok(name),
                // Fenced, they would keep everybody from ever taking a lease.
                "own" => Err(ProtectError::Own(name)),
                _ => Err(ProtectError::NotProtectable(name)),
            });
        let tables: Vec<String> = tables.collect::<Result<_, _>>()?;
        let arguments: Vec<String> = std::iter::once(protection.name.as_str())
            .chain(protection.allow_roles.iter().map(String::as_str))
            .map(sql::text)
            .collect();
        let arguments = arguments.join(", ");
        let schema = sql::identifier(self.link.settings().schema());
        let statements = tables.iter().map(|table| {
            format!(
                "drop trigger if exists {TRIGGER} on {table};
                create trigger {TRIGGER} before insert or update or delete or truncate on {table}
                for each statement execute function {schema}.fence_table({arguments});"
            )
        });
        self.change(statements.collect(), deadline).await?;
        Ok(tables)
    }

    pub(super) async fn unprotect_call(
        &mut self,
        tables: &[String],
        limit: Duration,
    ) -> Result<Vec<String>, ProtectError> {
        let deadline = Deadline::new(self.clock, limit);
        let protected = self.look(PROTECTED, &[], deadline).await?;
        let mut protected: Vec<String> = protected.into_iter().map(|(name, _kind)| name).collect();
        if !tables.is_empty() {
            let wanted = self.families(tables, deadline).await?;
            protected.retain(|table| wanted.iter().any(|(name, _kind)| name == table));
        }
        let statements = protected
            .iter()
            .map(|table| format!("drop trigger if exists {TRIGGER} on {table};"));
        self.change(statements.collect(), deadline).await?;
        Ok(protected)
    }

    /// The tables and their partitions, quoted, and of which kind each is.
    async fn families(
        &mut self,
        tables: &[String],
        deadline: Deadline,
    ) -> Result<Vec<(String, String)>, ProtectError> {
        let mut all = Vec::new();
        for table in tables {
            if table.contains('\0') {
                return Err(ProtectError::NoSuchTable(table.clone()));
            }
            let family = self
                .look(FAMILY, &[("table", &sql::text(table))], deadline)
                .await?;
            if family.is_empty() {
                return Err(ProtectError::NoSuchTable(table.clone()));
            }
            for of_it in family {
                if !all.contains(&of_it) {
                    all.push(of_it);
                }
            }
        }
        Ok(all)
    }

    /// The rows of one question, as name and kind.
    async fn look(
        &mut self,
        question: &str,
        values: &sql::Values<'_>,
        deadline: Deadline,
    ) -> Result<Vec<(String, String)>, ProtectError> {
        let build = |store: &Self, left| store.message(&[question], values, left);
        let rows = match self.call(deadline, build).await.reply {
            Ok(rows) => rows,
            // A name that is no name: `to_regclass` says so with an error.
            Err(Failure::Refused(refused))
                if matches!(refused.code.as_str(), "42602" | "42601") =>
            {
                return Ok(Vec::new());
            }
            Err(failure) => return Err(self.given_up(failure).into()),
        };
        let read = rows.iter().flatten().map(|row| {
            let cells = Cells(row);
            match cells.text("name") {
                Ok(name) => Ok((name.unwrap_or_default(), cells.words("kind")?)),
                Err(_a_role) => Ok((String::new(), String::new())),
            }
        });
        let read: Result<_, Failure> = read.collect();
        read.map_err(|failure| self.given_up(failure).into())
    }

    /// All or none, without standing in anybody's way for long.
    async fn change(
        &mut self,
        statements: Vec<String>,
        deadline: Deadline,
    ) -> Result<(), ProtectError> {
        if statements.is_empty() {
            return Ok(());
        }
        let statements = statements.concat();
        loop {
            let build = |store: &Self, left| {
                let begin = store.message(&[schema::BEGIN], &[], left);
                format!("{begin}{statements}")
            };
            match self.call(deadline, build).await.reply {
                Ok(_) => return Ok(()),
                Err(failure) => {
                    let repeat = schema::before_next(failure, deadline).await;
                    self.read(repeat)?;
                }
            }
        }
    }
}
