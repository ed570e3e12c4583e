//! The same families as messages of OTLP.

use headworks_actors::Distribution;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum,
};

use super::families::{In, Kind, Value, told};

/// Collects families. Their names are those of Prometheus without the unit and without `_total`, which a collector adds for
/// Prometheus by the unit and the kind: so both ways in give the same series.
pub(super) struct Sink {
    metrics: Vec<Metric>,
    /// Since when counters count, and now, in nanoseconds since 1970.
    began: u64,
    now: u64,
}

impl Sink {
    pub(super) fn new(began: u64, now: u64) -> Self {
        Self { metrics: vec![], began, now }
    }

    /// All families that have a value.
    pub(super) fn told(self) -> Vec<Metric> {
        let has_value = |metric: &Metric| match &metric.data {
            Some(Data::Sum(sum)) => !sum.data_points.is_empty(),
            Some(Data::Gauge(gauge)) => !gauge.data_points.is_empty(),
            Some(Data::Histogram(histogram)) => !histogram.data_points.is_empty(),
            _ => false,
        };
        self.metrics.into_iter().filter(has_value).collect()
    }

    pub(super) fn family(&mut self, name: &str, unit: In, help: &str, kind: Kind) {
        let aggregation_temporality = AggregationTemporality::Cumulative.into();
        let data = match kind {
            Kind::Counter => Data::Sum(Sum { data_points: vec![], aggregation_temporality, is_monotonic: true }),
            Kind::Gauge | Kind::Info => Data::Gauge(Gauge::default()),
            Kind::Histogram => Data::Histogram(Histogram { data_points: vec![], aggregation_temporality }),
        };
        let unit = match unit {
            // "1" would be told apart as a ratio.
            In::Things => "",
            In::Bytes => "By",
            In::Seconds => "s",
        };
        let name = if kind == Kind::Info { format!("{name}_info") } else { name.to_owned() };
        let (description, unit, data) = (help.to_owned(), unit.to_owned(), Some(data));
        self.metrics.push(Metric { name, description, unit, metadata: vec![], data });
    }

    /// A value of the last family.
    pub(super) fn value(&mut self, labels: &[(&str, &str)], value: Value<'_>) {
        let attributes = labels.iter().map(|(key, value)| text(key, *value)).collect();
        let (start_time_unix_nano, time_unix_nano) = (self.began, self.now);
        let Some(data) = self.metrics.last_mut().and_then(|metric| metric.data.as_mut()) else { return };
        let whole = |value: u64| Number::AsInt(i64::try_from(value).unwrap_or(i64::MAX));
        let number = match value {
            Value::Whole(value) => whole(value),
            Value::Broken(value) => Number::AsDouble(value),
            Value::There => whole(1),
            Value::Spread(unit, values) => {
                if let Data::Histogram(histogram) = data {
                    let point =
                        HistogramDataPoint { attributes, start_time_unix_nano, time_unix_nano, ..spread(unit, values) };
                    histogram.data_points.push(point);
                }
                return;
            }
        };
        let point = NumberDataPoint { attributes, time_unix_nano, value: Some(number), ..NumberDataPoint::default() };
        match data {
            Data::Sum(sum) => sum.data_points.push(NumberDataPoint { start_time_unix_nano, ..point }),
            Data::Gauge(gauge) => gauge.data_points.push(point),
            _ => {}
        }
    }
}

fn spread(unit: In, values: &Distribution) -> HistogramDataPoint {
    HistogramDataPoint {
        count: values.count(),
        sum: Some(told(unit, values.sum)),
        bucket_counts: values.counts.to_vec(),
        explicit_bounds: values.bounds.iter().map(|bound| told(unit, *bound)).collect(),
        ..HistogramDataPoint::default()
    }
}

/// An attribute that is a text.
pub(crate) fn text(key: &str, value: impl Into<String>) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.into())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}
