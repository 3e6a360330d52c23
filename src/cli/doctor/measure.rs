//! What round trips tell: how long the line is, and how the database's clock
//! runs against this host's.

use std::time::Duration;

use crate::lease::time::BootInstant;
use crate::store::postgres::doctor::RoundTrip;

/// Round trips, in order.
#[derive(Debug, Clone, Default)]
pub struct Trips {
    trips: Vec<RoundTrip>,
    /// Of the wall clocks: the database's minus ours, in microseconds.
    offsets: Vec<i64>,
}

/// A clock's rate against ours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// 0.001: it gains a thousandth.
    pub gain: f64,
    /// How far off the measurement may be.
    pub error: f64,
}

impl Trips {
    /// One more; `wall` is this host's wall clock when it was sent.
    pub fn add(&mut self, trip: RoundTrip, wall: Duration) {
        let middle = wall + trip.took / 2;
        let ours = i64::try_from(middle.as_micros()).unwrap_or(i64::MAX);
        self.offsets.push(trip.database_us.saturating_sub(ours));
        self.trips.push(trip);
    }

    /// The median and the longest.
    pub fn took(&self) -> Option<(Duration, Duration)> {
        let mut took: Vec<Duration> = self.trips.iter().map(|trip| trip.took).collect();
        took.sort_unstable();
        Some((*took.get(took.len() / 2)?, *took.last()?))
    }

    /// The database's wall clock minus ours, in microseconds, as the quickest
    /// trip shows it.
    pub fn offset_us(&self) -> Option<i64> {
        let trips = self.trips.iter().zip(&self.offsets);
        trips
            .min_by_key(|(trip, _)| trip.took)
            .map(|(_, offset)| *offset)
    }

    /// From the quickest trip of the first third to that of the last.
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a few seconds")]
    pub fn rate(&self) -> Option<Rate> {
        let third = self.trips.len().div_ceil(3);
        let quickest = |trips: &[RoundTrip]| trips.iter().min_by_key(|trip| trip.took).copied();
        let early = quickest(self.trips.get(..third)?)?;
        let late = quickest(self.trips.get(self.trips.len() - third..)?)?;
        let ours = middle(late).saturating_since(middle(early)).as_secs_f64();
        if ours < 0.5 {
            return None;
        }
        let theirs = late.database_us.saturating_sub(early.database_us) as f64 / 1e6;
        let doubt = (early.took + late.took).as_secs_f64() / 2.0;
        Some(Rate {
            gain: theirs / ours - 1.0,
            error: doubt / ours,
        })
    }
}

fn middle(trip: RoundTrip) -> BootInstant {
    trip.sent_at + trip.took / 2
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Trips of `took` each, 200 ms apart, against a clock that gains `gain`
    /// and is `offset` microseconds ahead.
    pub fn trips(took: Duration, gain: f64, offset: i64) -> Trips {
        let mut trips = Trips::default();
        for tick in 0..11_u32 {
            let since = Duration::from_millis(200) * tick;
            let database = since.mul_f64(1.0 + gain) + took / 2;
            let trip = RoundTrip {
                sent_at: BootInstant::ZERO + Duration::from_secs(50) + since,
                took,
                database_us: i64::try_from(database.as_micros()).expect("small") + offset,
            };
            trips.add(trip, since);
        }
        trips
    }

    #[test]
    fn a_rate_and_an_offset_are_seen_through_a_long_line() {
        let trips = trips(Duration::from_millis(40), 0.08, 3_600_000_000);
        let rate = trips.rate().expect("two seconds");
        assert!((rate.gain - 0.08).abs() < 0.002, "{rate:?}");
        assert!(rate.error > 0.01 && rate.error < 0.05, "{rate:?}");
        assert_eq!(trips.offset_us().map(|us| us / 1_000_000), Some(3600));
        assert_eq!(
            trips.took(),
            Some((Duration::from_millis(40), Duration::from_millis(40)))
        );
    }

    #[test]
    fn nothing_is_made_of_nothing() {
        let none = Trips::default();
        assert_eq!(
            (none.took(), none.offset_us(), none.rate()),
            (None, None, None)
        );
    }
}
