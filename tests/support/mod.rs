//! The kit of the black-box tests: real servers, a proxy that breaks lines,
//! a worker that witnesses when it lived, leasewraps that are cleaned up.
//!
//! Everything that a test starts or writes belongs to its [`run`]: a sweeper
//! kills and deletes it when the test process ends, however it ends.
#![expect(dead_code, reason = "each test target uses a part of the kit")]

pub mod etcd;
pub mod installation;
pub mod leasewrap;
pub mod manager;
pub mod proc;
pub mod programs;
pub mod proxy;
pub mod pty;
pub mod run;
pub mod server;
pub mod session;
pub mod strangers;
pub mod sys;
pub mod user;
pub mod wait;
pub mod witness;
