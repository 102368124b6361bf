//! Pages of lists that go by time and id.

use std::fmt::Display;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::OffsetDateTime;

/// Where a page ended. Nobody but [`read_cursor`] is to read it.
#[must_use]
pub fn cursor(at: OffsetDateTime, id: impl Display) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}/{id}", at.unix_timestamp_nanos()))
}

/// What [`cursor`] wrote. `None`: it did not write this.
#[must_use]
pub fn read_cursor<Id: FromStr>(text: &str) -> Option<(OffsetDateTime, Id)> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (nanos, id) = text.split_once('/')?;
    Some((OffsetDateTime::from_unix_timestamp_nanos(nanos.parse().ok()?).ok()?, id.parse().ok()?))
}

/// Leaves the `limit` rows of a page of the one more that were asked for, and says whether there was more.
pub fn cut<T>(rows: &mut Vec<T>, limit: i64) -> bool {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    more
}
