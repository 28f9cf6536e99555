//! Control: one thread, no data path. It reads the configuration, plans changes, and is the single writer of all that
//! shards share.
//!
//! ```text
//!   daemon: signals, sockets, devices        shards
//!        │ Post    ▲ Host, Devices            │ ControlMailbox   ▲ Shards
//!        ▼         │                          ▼                  │
//!      runtime ────┴── the thread, helper threads, the clock ────┘
//!        │ Mail, now   ▲ Order
//!        ▼             │
//!       core ──────────┘   a value: sessions, units, configuration; the simulator runs the same one
//!        ├── registry      who is logged in, where
//!        ├── fence         one per logical unit: a change is durable and everywhere before anybody hears GOOD
//!        └── identity      what a DEVICE is to initiators
//!      ledger_store        what outlives the process        http, metrics   what the gateway tells of itself
//!      scst_conf           scst.conf, read and written      plan   from one configuration to another, in steps
//! ```

mod access;
pub mod core;
pub mod fence;
pub mod http;
pub mod identity;
pub mod ledger_store;
pub mod metrics;
pub mod plan;
pub mod registry;
pub mod runtime;
pub mod scst_conf;
