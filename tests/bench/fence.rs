//! What a protected table costs per transaction: pgbench against a plain
//! table and a protected one, in turn.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::installation::tool;
use crate::support::leasewrap::{holder, lease_name};
use crate::support::run::run;
use crate::support::server::{Options, Server};
use crate::support::wait::{SOON, until_true};
use crate::{Samples, table};

/// Clients at once.
const CLIENTS: [u32; 3] = [2, 8, 32];
/// Turns of each.
const TURNS: usize = 5;
/// Of each turn, in seconds.
const SECONDS: u32 = 4;

/// Everything in turn, on a server whose commits cost what they cost.
pub fn measure() {
    let server = Server::with(Options {
        fsync: true,
        ..Options::default().set("shared_buffers", "128MB")
    });
    let name = lease_name("fence");
    let leasewrap = holder(&server.url(), &name)
        .worker(&["sleep", "600"])
        .spawn();
    leasewrap.wait_event("acquired");
    let token = server.psql(&format!(
        "select token from leasewrap.lease where name = '{name}'"
    ));
    for table in ["plain", "fenced"] {
        server.psql(&format!(
            "create table {table} (id bigint generated always as identity, n int)"
        ));
    }
    let protected = Command::new(crate::support::leasewrap::binary())
        .args(["protect", "fenced", "--db", &server.url(), "--name", &name])
        .output()
        .expect("run leasewrap protect");
    assert!(protected.status.success(), "{protected:?}");
    let options = format!("-c leasewrap.name={name} -c leasewrap.token={token}");
    for clients in CLIENTS {
        let mut rows = ["plain", "fenced"].map(Samples::of);
        let mut members = 0;
        for _ in 0..TURNS {
            for (row, table) in rows.iter_mut().zip(["plain", "fenced"]) {
                let before = multixact_members(&server);
                row.add_ms(pgbench(&server, table, clients, &options));
                members += multixact_members(&server) - before;
            }
        }
        let title = format!("insert in a transaction of its own, {clients} clients");
        table(&title, "transactions per second", &rows);
        let [plain, fenced] = [rows[0].median(), rows[1].median()];
        let seconds = f64::from(SECONDS) * TURNS as f64;
        println!(
            "cost of the fence: {:.1} % of the throughput; {:.0} multixact members per second",
            (1.0 - fenced / plain) * 100.0,
            members as f64 / seconds
        );
    }
    leasewrap.signal(libc::SIGTERM);
    leasewrap.end_within(Duration::from_secs(10));
}

/// Transactions per second.
fn pgbench(server: &Server, table: &str, clients: u32, options: &str) -> f64 {
    let script = run().file("script");
    std::fs::write(&script, format!("insert into {table} (n) values (1);\n")).expect("write");
    let output = Command::new(tool("pgbench"))
        .args(["-n", "-M", "prepared", "-U", "postgres", "-f"])
        .arg(&script)
        .args(["-c", &clients.to_string(), "-j", "2"])
        .args(["-T", &SECONDS.to_string(), "-h"])
        .arg(server.dir())
        .args(["-p", &server.port().to_string(), "postgres"])
        .env("PGOPTIONS", options)
        .stdin(Stdio::null())
        .output()
        .expect("run pgbench");
    let text = String::from_utf8_lossy(&output.stdout);
    let tps = text.lines().find_map(|line| {
        let rest = line.strip_prefix("tps = ")?;
        rest.split_whitespace().next()?.parse().ok()
    });
    tps.unwrap_or_else(|| panic!("pgbench: {output:?}"))
}

/// Of all time, as of now.
fn multixact_members(server: &Server) -> i64 {
    until_true("a checkpoint", SOON, || {
        server.try_psql("postgres", "checkpoint").is_ok()
    });
    let members = server.psql("select next_multi_offset from pg_control_checkpoint()");
    members.parse().expect("a number")
}
