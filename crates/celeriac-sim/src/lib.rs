//! Deterministic simulation of celeriac: the real worker, client and Redis broker in one thread, on virtual
//! time, over a modelled network and a modelled Redis, with faults from one seed.
//!
//! [`run`] plays a run, [`faults`] draws its faults, [`history`] records what happened, and [`checker`] accounts
//! for every task without any code of celeriac. `docs/fault-model.md` lists what is promised under which faults.

pub mod checker;
pub mod faults;
pub mod history;
pub mod network;
pub mod redis;
pub mod rng;
pub mod run;
pub mod workload;
