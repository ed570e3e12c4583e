//! Bytes to events: what framing and decoding cost, an event.
//!
//! `cargo bench --bench decode`; an iteration is 10,000 events of 200 bytes, the throughput is events a second.
#![expect(clippy::expect_used, reason = "a bench has nobody to report to")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use headworks::{Decoder, Frame, Framer, Framing, Json, RawLines, TenantId, TypedJson, UnixMillis};
use serde::Deserialize;

const EVENTS: usize = 10_000;
const READ: usize = 64 << 10;

fn event(number: usize) -> String {
    let tenant = number * 7919 % 500;
    let text = "GET /v1/orders/8471/items?limit=50&cursor=c29tZXRoaW5n 200 in 12.8 ms from 203.0.113.77 by curl/8.4.0 (x86_64-linux-gnu) found";
    let ts = 1_732_233_600_000 + number;
    let seq = 100_000 + number;
    format!(r#"{{"tenant":"t{tenant:03}","ts":{ts},"level":"info","seq":{seq},"line":"{text}"}}"#)
}

fn lines() -> Vec<u8> {
    (0..EVENTS).flat_map(|number| (event(number) + "\n").into_bytes()).collect()
}

fn escaped_lines() -> Vec<u8> {
    let escaped = |number| event(number).replace(" from ", r#" \"from\" "#) + "\n";
    (0..EVENTS).flat_map(|number| escaped(number).into_bytes()).collect()
}

fn length_prefixed() -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..EVENTS {
        let event = event(number);
        bytes.extend_from_slice(&u32::try_from(event.len()).expect("a short event").to_be_bytes());
        bytes.extend_from_slice(event.as_bytes());
    }
    bytes
}

/// Reads of 64 KiB through one framer; gives each frame to `take` and the number of frames back.
fn each_frame(framing: &Framing, bytes: &[u8], mut take: impl FnMut(&[u8])) -> usize {
    let mut framer = Framer::new(framing);
    let mut frames = 0;
    for read in bytes.chunks(READ) {
        let mut position = 0;
        while let Some(Frame::Complete(frame)) = framer.next(read, &mut position) {
            take(frame);
            frames += 1;
        }
    }
    assert_eq!(frames, EVENTS);
    frames
}

fn decode_all(decoder: &dyn Decoder, bytes: &[u8]) -> usize {
    each_frame(&Framing::lines(), bytes, |frame| {
        black_box(decoder.decode(frame).expect("an event"));
    })
}

/// What a service would write by hand. It skips the rest of the object unchecked (depth, surrogates, numbers).
#[derive(Deserialize)]
struct Unchecked<'f> {
    tenant: &'f str,
    ts: i64,
}

#[derive(Deserialize)]
struct Owned {
    tenant: String,
    ts: i64,
}

fn benches(c: &mut Criterion) {
    assert_eq!(event(0).len(), 200);
    let (lines, escaped, prefixed) = (lines(), escaped_lines(), length_prefixed());
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(EVENTS as u64));

    group.bench_function("framing only/lines", |b| {
        b.iter(|| each_frame(&Framing::lines(), &lines, |frame| _ = black_box(frame)))
    });
    group.bench_function("framing only/length prefixed", |b| {
        b.iter(|| each_frame(&Framing::length_prefixed(), &prefixed, |frame| _ = black_box(frame)))
    });

    let raw = RawLines::new(TenantId::new("acme").expect("a tenant id"));
    group.bench_function("lines + RawLines", |b| b.iter(|| decode_all(&raw, &lines)));

    let json = Json::new();
    group.bench_function("lines + Json", |b| b.iter(|| decode_all(&json, &lines)));
    let json = Json::new().time_field("ts");
    group.bench_function("lines + Json with time", |b| b.iter(|| decode_all(&json, &lines)));
    group.bench_function("lines + Json with time, escapes", |b| b.iter(|| decode_all(&json, &escaped)));

    let typed = TypedJson::new(|event: &Owned| event.tenant.clone()).time(|event| Some(UnixMillis(event.ts)));
    group.bench_function("lines + TypedJson", |b| b.iter(|| decode_all(&typed, &lines)));

    group.bench_function("lines + serde_json struct, rest unchecked", |b| {
        b.iter(|| {
            each_frame(&Framing::lines(), &lines, |frame| {
                let event: Unchecked<'_> = serde_json::from_slice(frame).expect("an event");
                black_box((event.tenant, event.ts));
            })
        })
    });
    group.bench_function("lines + serde_json::Value", |b| {
        b.iter(|| {
            each_frame(&Framing::lines(), &lines, |frame| {
                black_box(serde_json::from_slice::<serde_json::Value>(frame).expect("an event"));
            })
        })
    });
    // Others' fastest: what checks the whole frame, and what does not.
    group.bench_function("lines + sonic_rs::Value", |b| {
        b.iter(|| {
            each_frame(&Framing::lines(), &lines, |frame| {
                black_box(sonic_rs::from_slice::<sonic_rs::Value>(frame).expect("an event"));
            })
        })
    });
    group.bench_function("lines + sonic_rs struct, rest unchecked", |b| {
        b.iter(|| {
            each_frame(&Framing::lines(), &lines, |frame| {
                let event: Unchecked<'_> = sonic_rs::from_slice(frame).expect("an event");
                black_box((event.tenant, event.ts));
            })
        })
    });
    group.bench_function("lines + simd_json tape, which needs a copy", |b| {
        let (mut copy, mut buffers) = (Vec::new(), simd_json::Buffers::default());
        b.iter(|| {
            each_frame(&Framing::lines(), &lines, |frame| {
                copy.clear();
                copy.extend_from_slice(frame);
                black_box(simd_json::to_tape_with_buffers(&mut copy, &mut buffers).expect("an event"));
            })
        })
    });
    group.finish();
}

criterion_group! {
    name = decode;
    config = Criterion::default().sample_size(30);
    targets = benches
}
criterion_main!(decode);
