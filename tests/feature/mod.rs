mod ack;
mod api;
mod audit;
mod backup;
mod broken_lines;
mod command_line;
mod commands;
mod config;
mod control;
mod crash;
mod crash_acks;
mod crash_judge;
mod crash_points;
mod data_dir;
mod dead_letters;
mod disk_faults;
mod files;
mod files_store;
#[cfg(feature = "http")]
mod http;
mod index_store;
mod input;
mod journal;
mod journal_commands;
mod letters_store;
mod manual;
mod metrics;
mod metrics_alerts;
#[cfg(feature = "nats")]
mod nats;
mod openapi;
mod outage;
mod page;
#[cfg(feature = "postgres")]
mod postgres_crash;
#[cfg(feature = "postgres")]
mod postgres_daemon;
#[cfg(feature = "postgres")]
mod postgres_faults;
#[cfg(feature = "postgres")]
mod postgres_store;
mod query;
mod reload;
mod replay;
mod replay_crash;
mod retention;
mod service;
mod spans;
mod spill;
mod sqlite_store;
mod stop;
mod supervisor_log;
#[cfg(feature = "syslog")]
mod syslog;
#[cfg(feature = "tail")]
mod tail;
mod tap;
mod tcp;
#[cfg(feature = "otlp")]
mod telemetry;
mod tenant_orders;
mod top;
mod uncompensated;
mod upgrade;
