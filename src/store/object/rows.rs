//! Rows of Parquet: one an event, compressed with zstd. What is known of the batch is in the metadata of the file.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, BooleanBuilder, Float64Builder, Int64Builder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMillisecondType;
use arrow_array::{
    Array, ArrayRef, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray, TimestampMillisecondArray,
};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use bytes::Bytes;
use headworks_actors::{EventRef, UnixMillis};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::content::{Event, Rows};
use crate::store::columns::{Column, ColumnType, Columns, Value};

/// The key of the head in the metadata of the file.
const KEY: &str = "headworks";

pub(super) fn encode(head: &impl Serialize, batches: &[Rows<'_>], columns: &[String]) -> Result<Vec<u8>, String> {
    let columns = Columns::new(Column::parse_all(columns)?);
    let rows = rows(batches, &columns).map_err(|why| why.to_string())?;
    let json = serde_json::to_string(head).map_err(|why| why.to_string())?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(Some(vec![KeyValue::new(KEY.to_owned(), json)]))
        .build();
    let write = || {
        let mut writer = ArrowWriter::try_new(vec![], rows.schema(), Some(properties))?;
        if rows.num_rows() > 0 {
            writer.write(&rows)?;
        }
        writer.into_inner()
    };
    write().map_err(|why| why.to_string())
}

fn schema(columns: &[Column]) -> Schema {
    let time = || DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    let mut fields = vec![
        Field::new("batch", DataType::Utf8, false),
        Field::new("seq", DataType::Int64, false),
        Field::new("idx", DataType::Int32, false),
        Field::new("tenant", DataType::Utf8, false),
        Field::new("arrived_at", time(), false),
        Field::new("event_time", time(), true),
        Field::new("body", DataType::Utf8, true),
        Field::new("raw", DataType::Binary, true),
    ];
    fields.extend(columns.iter().map(|column| {
        let kind = match column.kind {
            ColumnType::Text | ColumnType::Json => DataType::Utf8,
            ColumnType::Integer => DataType::Int64,
            ColumnType::Number => DataType::Float64,
            ColumnType::Boolean => DataType::Boolean,
            ColumnType::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        };
        Field::new(&column.name, kind, true)
    }));
    Schema::new(fields)
}

fn rows(batches: &[Rows<'_>], columns: &Columns) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let events: Vec<EventRef<'_>> = batches.iter().flat_map(|batch| &batch.events).copied().collect();
    let (mut ids, mut seqs, mut tenants, mut places) = (StringBuilder::new(), vec![], StringBuilder::new(), vec![]);
    for Rows { batch, events } in batches {
        let (id, seq) = (batch.to_string(), i64::try_from(batch.seq.0).unwrap_or(i64::MAX));
        for (place, _) in (0..).zip(events) {
            ids.append_value(&id);
            seqs.push(seq);
            places.push(place);
            tenants.append_value(batch.tenant.as_str());
        }
    }
    let (mut body, mut raw) = (StringBuilder::new(), BinaryBuilder::new());
    for event in &events {
        let text = std::str::from_utf8(event.body).ok();
        body.append_option(text);
        raw.append_option(text.is_none().then_some(event.body));
    }
    let in_utc = |times: TimestampMillisecondArray| -> ArrayRef { Arc::new(times.with_timezone("UTC")) };
    let mut arrays: Vec<ArrayRef> = vec![
        Arc::new(ids.finish()),
        Arc::new(Int64Array::from(seqs)),
        Arc::new(Int32Array::from(places)),
        Arc::new(tenants.finish()),
        in_utc(events.iter().map(|event| Some(event.arrived.0)).collect()),
        in_utc(events.iter().map(|event| event.time.map(|at| at.0)).collect()),
        Arc::new(body.finish()),
        Arc::new(raw.finish()),
    ];
    if !columns.all.is_empty() {
        let mut found = vec![vec![]; columns.all.len()];
        let mut of_event = vec![];
        for event in &events {
            columns.find(event.body, &mut of_event);
            for (column, json) in found.iter_mut().zip(&of_event) {
                column.push(*json);
            }
        }
        arrays.extend(columns.all.iter().zip(&found).map(|(column, found)| fields(column.kind, found)));
    }
    RecordBatch::try_new(Arc::new(schema(&columns.all)), arrays)
}

/// A column. What does not fit it is null.
fn fields(kind: ColumnType, found: &[Option<&str>]) -> ArrayRef {
    let values = found.iter().map(|json| json.and_then(|json| kind.read(json).ok().flatten()));
    match kind {
        ColumnType::Text | ColumnType::Json => {
            let mut array = StringBuilder::new();
            for value in values {
                match value {
                    Some(Value::Text(text)) => array.append_value(text),
                    Some(Value::Json(json)) => array.append_value(json),
                    _ => array.append_null(),
                }
            }
            Arc::new(array.finish())
        }
        ColumnType::Integer => {
            let mut array = Int64Builder::new();
            values.for_each(|value| {
                array.append_option(if let Some(Value::Integer(n)) = value { Some(n) } else { None })
            });
            Arc::new(array.finish())
        }
        ColumnType::Number => {
            let mut array = Float64Builder::new();
            values
                .for_each(|value| array.append_option(if let Some(Value::Number(n)) = value { Some(n) } else { None }));
            Arc::new(array.finish())
        }
        ColumnType::Boolean => {
            let mut array = BooleanBuilder::new();
            values.for_each(|value| {
                array.append_option(if let Some(Value::Boolean(is)) = value { Some(is) } else { None })
            });
            Arc::new(array.finish())
        }
        ColumnType::Time => {
            let times = values.map(|value| if let Some(Value::Time(micros)) = value { Some(micros) } else { None });
            Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        }
    }
}

fn open(bytes: &[u8]) -> Result<ParquetRecordBatchReaderBuilder<Bytes>, String> {
    ParquetRecordBatchReaderBuilder::try_new(Bytes::copy_from_slice(bytes)).map_err(|why| why.to_string())
}

pub(super) fn head<H: DeserializeOwned>(bytes: &[u8]) -> Result<H, String> {
    let opened = open(bytes)?;
    let known = opened.metadata().file_metadata().key_value_metadata();
    let json = known.into_iter().flatten().find(|pair| pair.key == KEY).and_then(|pair| pair.value.as_deref());
    serde_json::from_str(json.ok_or("it is none of this store's")?).map_err(|why| why.to_string())
}

pub(super) fn events(bytes: &[u8]) -> Result<Vec<Event>, String> {
    let mut events = vec![];
    for rows in open(bytes)?.build().map_err(|why| why.to_string())? {
        let rows = rows.map_err(|why| why.to_string())?;
        let column = |name: &str| rows.column_by_name(name).ok_or_else(|| format!("it has no column {name}"));
        let (body, raw) = (column("body")?.as_string_opt::<i32>(), column("raw")?.as_binary_opt::<i32>());
        let arrived = column("arrived_at")?.as_primitive_opt::<TimestampMillisecondType>();
        let time = column("event_time")?.as_primitive_opt::<TimestampMillisecondType>();
        let (Some(body), Some(raw), Some(arrived), Some(time)) = (body, raw, arrived, time) else {
            return Err("its columns are of other types".into());
        };
        events.extend((0..rows.num_rows()).map(|row| Event {
            arrived: UnixMillis(arrived.value(row)),
            time: time.is_valid(row).then(|| UnixMillis(time.value(row))),
            body: if raw.is_valid(row) { raw.value(row).to_vec() } else { body.value(row).as_bytes().to_vec() },
        }));
    }
    Ok(events)
}
