//! A host of its own, as far as the network goes: a network namespace with
//! an address, joined to ours by a pair of virtual devices. All of it
//! vanishes with the process that holds the namespace.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use crate::support::run::{MARK, number, run};
use crate::support::wait::{SOON, until_true};

/// A network namespace.
pub struct Host {
    keeper: Child,
    /// The device on our side.
    device: String,
    ours: Ipv4Addr,
    its: Ipv4Addr,
}

impl Host {
    /// A new one; `Err` says why this machine gives none.
    pub fn new() -> Result<Self, String> {
        let (pid, number) = (std::process::id(), number() % 16_384);
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "infinity"]);
        command.env(MARK, run().dir()).stdin(Stdio::null());
        let keeper = command.spawn().map_err(|error| error.to_string())?;
        // Of each process of this machine its own /18, as far as that goes.
        let net =
            u32::from(Ipv4Addr::new(10, 64, 0, 0)) + ((pid % 256) << 14) + number * 4 % 16_384;
        let host = Self {
            device: format!("lw{}x{number}", pid % 100_000),
            ours: Ipv4Addr::from(net + 1),
            its: Ipv4Addr::from(net + 2),
            keeper,
        };
        host.join()?;
        Ok(host)
    }

    fn join(&self) -> Result<(), String> {
        let pid = self.keeper.id().to_string();
        let own = std::fs::read_link("/proc/self/ns/net").ok();
        until_true("there is a network namespace", SOON, || {
            let its = std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
            its.is_some() && its != own
        });
        let device = self.device.as_str();
        let inner = format!("{device}i");
        ip(&[
            "link", "add", device, "type", "veth", "peer", "name", &inner,
        ])?;
        ip(&["link", "set", &inner, "netns", &pid])?;
        ip(&["addr", "add", &format!("{}/30", self.ours), "dev", device])?;
        ip(&["link", "set", device, "up"])?;
        self.inside(&["addr", "add", &format!("{}/30", self.its), "dev", &inner])?;
        self.inside(&["link", "set", "lo", "up"])?;
        self.inside(&["link", "set", &inner, "up"])
    }

    /// What runs a command in it: the command's own arguments come last.
    pub fn words(&self) -> Vec<String> {
        let namespace = format!("--net=/proc/{}/ns/net", self.keeper.id());
        vec!["nsenter".to_owned(), namespace, "--".to_owned()]
    }

    /// Our address, as seen from there.
    pub fn ours(&self) -> Ipv4Addr {
        self.ours
    }

    /// Takes the line away: no packet passes, none is answered.
    pub fn cut(&self) {
        let _result = ip(&["link", "set", &self.device, "down"]);
    }

    /// Nothing reaches it any more.
    pub fn deafen(&self) {
        let _result = ip(&["route", "add", "blackhole", &self.its.to_string()]);
    }

    /// Nothing that it sends arrives.
    pub fn mute(&self) {
        let _result = self.inside(&["route", "add", "blackhole", &self.ours.to_string()]);
    }

    /// Undoes all of it.
    pub fn mend(&self) {
        // What was not done cannot be undone: no error counts here.
        let _result = ip(&["link", "set", &self.device, "up"]);
        let _result = ip(&["route", "del", "blackhole", &self.its.to_string()]);
        let _result = self.inside(&["route", "del", "blackhole", &self.ours.to_string()]);
    }

    fn inside(&self, words: &[&str]) -> Result<(), String> {
        let enter = self.words();
        let mut command = Command::new(&enter[0]);
        command.args(&enter[1..]).arg("ip").args(words);
        done(&mut command)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _result = self.keeper.kill();
        let _status = self.keeper.wait();
        // The device may outlive its namespace for a moment; it goes with it.
        let _result = ip(&["link", "del", &self.device]);
    }
}

fn ip(words: &[&str]) -> Result<(), String> {
    done(Command::new("ip").args(words))
}

fn done(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        ))
    }
}
