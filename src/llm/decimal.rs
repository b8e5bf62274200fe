//! Decimal numbers as TOML and JSON write them (`0.0375`, `3.75e-8`), read as whole multiples of a power of
//! ten.
//!
//! Text in, integer out; no float on the way, so `0.1` is a tenth. What is finer than the unit is rounded up
//! and said to be. Limits: `DIGITS_MAX` digits. Errors: no number, a negative one, one that is too large.

/// Digits of the number as written, those of the exponent apart.
pub const DIGITS_MAX: usize = 38;

/// A number of units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scaled {
    /// Rounded up.
    pub units: u64,
    /// It was not rounded.
    pub is_exact: bool,
}

/// Why there is no such number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAmount {
    NoNumber,
    Negative,
    TooLarge,
}

/// `text` in units of 10^-`places`.
pub fn scaled(text: &str, places: i32) -> Result<Scaled, NoAmount> {
    if text.starts_with('-') {
        return Err(NoAmount::Negative);
    }
    let text = text.strip_prefix('+').unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i16>().map_err(|_| NoAmount::NoNumber)?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() || whole.len() + fraction.len() > DIGITS_MAX {
        return Err(NoAmount::NoNumber);
    }
    let mut value: u128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        let digit = char::from(digit).to_digit(10).ok_or(NoAmount::NoNumber)?;
        value = value * 10 + u128::from(digit);
    }
    let shift = places + i32::from(exponent) - fraction.len() as i32;
    let (units, is_exact) = match (value, 10_u128.checked_pow(shift.unsigned_abs())) {
        (0, _) => (0, true),
        (value, Some(power)) if shift >= 0 => (value.checked_mul(power).ok_or(NoAmount::TooLarge)?, true),
        (_, None) if shift >= 0 => return Err(NoAmount::TooLarge),
        (value, Some(power)) => (value.div_ceil(power), value % power == 0),
        (_, None) => (1, false),
    };
    Ok(Scaled { units: u64::try_from(units).map_err(|_| NoAmount::TooLarge)?, is_exact })
}

#[cfg(test)]
mod tests {
    use super::{NoAmount, Scaled, scaled};

    #[test]
    fn a_decimal_number_is_read_to_the_last_digit() {
        let exact = |units| Ok(Scaled { units, is_exact: true });
        let rounded = |units| Ok(Scaled { units, is_exact: false });
        // text, places, units
        let rows = [
            ("0", 12, exact(0)),
            ("0.0", 12, exact(0)),
            ("0e999", 12, exact(0)),
            ("3.75e-8", 12, exact(37_500)),
            ("3.75E-08", 12, exact(37_500)),
            ("1.25e-05", 12, exact(12_500_000)),
            ("0.0375", 6, exact(37_500)),
            ("+2.50", 6, exact(2_500_000)),
            ("15", 6, exact(15_000_000)),
            ("1e3", 0, exact(1_000)),
            ("0.1", 1, exact(1)),
            ("0.11", 1, rounded(2)),
            ("1e-300", 12, rounded(1)),
            ("18446744073709551615", 0, exact(u64::MAX)),
            ("18446744073709551616", 0, Err(NoAmount::TooLarge)),
            ("1e300", 12, Err(NoAmount::TooLarge)),
            ("99999999999999999999999999999999999999", 38, Err(NoAmount::TooLarge)),
            ("100000000000000000000000000000000000000", 0, Err(NoAmount::NoNumber)),
            ("-1", 0, Err(NoAmount::Negative)),
            ("-0.5", 0, Err(NoAmount::Negative)),
            ("", 0, Err(NoAmount::NoNumber)),
            (".5", 0, Err(NoAmount::NoNumber)),
            ("1e", 0, Err(NoAmount::NoNumber)),
            ("1e99999", 0, Err(NoAmount::NoNumber)),
            ("1.2.3", 0, Err(NoAmount::NoNumber)),
            ("nan", 0, Err(NoAmount::NoNumber)),
            ("\u{661}", 0, Err(NoAmount::NoNumber)),
        ];
        for (text, places, expected) in rows {
            assert_eq!(scaled(text, places), expected, "{text:?} with {places} places");
        }
    }
}
