use std::io;

use super::{DaemonError, Opened, Opening, decoder};
use crate::AckLevel;
use crate::config::JournalKind;
use crate::source::{NatsOptions, NatsSource, SubjectPattern};

/// A stream of a NATS server, which may come later.
pub(super) fn open(opening: &Opening<'_>) -> Result<Opened, DaemonError> {
    let source = opening.source;
    let subject = source.subject.as_deref().map_or(Ok(SubjectPattern::default()), str::parse);
    // A server forgets what is acknowledged to it.
    let least = match opening.config.journal.kind {
        JournalKind::Durable => AckLevel::Journaled,
        _ => AckLevel::Stored,
    };
    let options = NatsOptions {
        consumer: source.consumer.clone(),
        subject: subject.map_err(|why| opening.refused(io::Error::other(why)))?,
        credentials: source.credentials_file.clone(),
        ca: source.ca_file.clone(),
        ack_wait: source.ack_wait,
        max_ack_pending: source.max_ack_pending,
        ack: source.ack.max(least),
        max_frame: source.max_frame,
        ..NatsOptions::new(source.url.clone().unwrap_or_default(), source.stream.clone().unwrap_or_default())
    };
    Ok((None, Box::new(NatsSource::new(opening.name, decoder(opening.config), options))))
}
