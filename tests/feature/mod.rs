mod ack;
mod api;
mod audit;
mod backup;
mod bad_clients;
mod broken_lines;
mod check_files;
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
mod demo;
mod disk_faults;
mod downstream;
#[cfg(all(feature = "postgres", feature = "parquet", feature = "nats", feature = "webhook"))]
mod erasure;
mod failing;
mod files;
mod files_rotation;
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
#[cfg(all(feature = "mqtt", feature = "postgres"))]
mod mqtt;
#[cfg(feature = "nats")]
mod nats;
#[cfg(all(feature = "nats", feature = "parquet"))]
mod nats_parquet;
#[cfg(feature = "nats")]
mod nats_store;
#[cfg(feature = "nats")]
mod nats_store_daemon;
#[cfg(feature = "parquet")]
mod object_compact;
#[cfg(feature = "parquet")]
mod object_crash;
#[cfg(feature = "parquet")]
mod object_daemon;
#[cfg(feature = "parquet")]
mod object_faults;
#[cfg(feature = "parquet")]
mod object_retention;
#[cfg(feature = "parquet")]
mod object_store;
mod open_files;
mod openapi;
mod outage;
mod page;
#[cfg(feature = "postgres")]
mod postgres_columns;
#[cfg(feature = "postgres")]
mod postgres_crash;
#[cfg(feature = "postgres")]
mod postgres_daemon;
#[cfg(feature = "postgres")]
mod postgres_faults;
#[cfg(all(feature = "postgres", feature = "parquet"))]
mod postgres_object_saga;
#[cfg(feature = "postgres")]
mod postgres_retention;
#[cfg(feature = "postgres")]
mod postgres_store;
mod query;
mod reload;
mod replay;
mod replay_crash;
mod retention;
mod service;
#[cfg(all(feature = "http", feature = "websocket", feature = "syslog", feature = "tail"))]
mod source_conformance;
#[cfg(all(feature = "mqtt", feature = "nats", feature = "postgres"))]
mod source_conformance_brokers;
mod spans;
mod spill;
mod sqlite_store;
#[cfg(feature = "stdout")]
mod stdout;
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
#[cfg(all(feature = "tls", feature = "http", feature = "syslog"))]
mod tls;
mod top;
mod uncompensated;
mod upgrade;
#[cfg(feature = "webhook")]
mod webhook;
#[cfg(feature = "websocket")]
mod websocket;
