//! The pool's log and what follows from it: transactions, snapshots, subscriptions, sessions.
#![forbid(unsafe_code)]
