//! Line charts as inline SVG.
//!
//! Input: named series of points. Output: one `<svg>` element, 640 by 320, readable without script and
//! colours: each series has its own dash and its name at the legend. Points outside a logarithmic scale (≤ 0)
//! are left out.

use std::fmt::Write as _;

pub struct Chart<'a> {
    pub title: &'a str,
    pub x_label: &'a str,
    pub y_label: &'a str,
    pub x: Scale,
    pub y: Scale,
    pub series: Vec<Series>,
}

pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From zero to a round number above the largest value.
    Linear,
    /// Decades around the values.
    Logarithmic,
    /// Quantiles: 0.9, 0.99, 0.999 … stand at equal distances.
    Quantile,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 70.0;
const COLOURS: [&str; 6] = ["#0b6bcb", "#d1495b", "#2e8b57", "#8e5ea2", "#b8860b", "#455a64"];
const DASHES: [&str; 6] = ["", "7 3", "2 2", "10 3 2 3", "4 4", "1 3"];

/// A scale with its ends, in scale units, and the ticks on it.
struct Axis {
    scale: Scale,
    least: f64,
    most: f64,
}

impl Scale {
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Logarithmic => value.log10(),
            Self::Quantile => -(1.0 - value).log10(),
        }
    }
}

impl Axis {
    fn of(scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let places = values.map(|value| scale.place(value)).filter(|place| place.is_finite());
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for place in places {
            least = least.min(place);
            most = most.max(place);
        }
        if least > most {
            (least, most) = (0.0, 1.0);
        }
        match scale {
            Scale::Linear => {
                let step = nice_step(most.max(1e-9));
                Self { scale, least: least.min(0.0), most: (most / step).ceil().max(1.0) * step }
            }
            Scale::Logarithmic => {
                let (least, most) = (least.floor(), most.ceil());
                Self { scale, least, most: most.max(least + 1.0) }
            }
            Scale::Quantile => Self { scale, least: 0.0, most: most.max(1.0) },
        }
    }

    /// 0 to 1 along the axis.
    fn share(&self, value: f64) -> f64 {
        ((self.scale.place(value) - self.least) / (self.most - self.least)).clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Linear => {
                let step = nice_step(self.most);
                let first = (self.least / step).ceil() as i64;
                let last = (self.most / step + 1e-9).floor() as i64;
                (first..=last).map(|n| (n as f64 * step, number(n as f64 * step))).collect()
            }
            Scale::Logarithmic => {
                // Few decades have room for ticks between them.
                let steps: &[f64] = if self.most - self.least < 3.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let decades = self.least as i32..=self.most as i32;
                let values = decades.flat_map(|n| steps.iter().map(move |step| step * 10f64.powi(n)));
                let within = values.filter(|value| value.log10() <= self.most + 1e-9);
                within.map(|value| (value, number(value))).collect()
            }
            Scale::Quantile => {
                let ticks = (0..=self.most as i32).map(|n| 1.0 - 10f64.powi(-n));
                ticks.map(|quantile| (quantile, percent(quantile))).collect()
            }
        }
    }
}

/// About five steps of 1, 2 or 5 times a power of ten.
fn nice_step(most: f64) -> f64 {
    let raw = most / 5.0;
    let power = 10f64.powf(raw.log10().floor());
    let factor =
        [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= raw * 0.999).unwrap_or(10.0);
    factor * power
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{}M", trim(value / 1e6)),
        size if size >= 1e4 => format!("{}k", trim(value / 1e3)),
        _ => trim(value),
    }
}

fn trim(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn percent(quantile: f64) -> String {
    if quantile == 0.0 {
        return "0".to_owned();
    }
    let text = format!("{:.6}", quantile * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

impl Chart<'_> {
    pub fn svg(&self) -> String {
        let all = || self.series.iter().flat_map(|series| series.points.iter());
        let x = Axis::of(self.x, all().map(|point| point.0));
        let y = Axis::of(self.y, all().map(|point| point.1));
        let mut out = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n<text x=\"{LEFT}\" y=\"20\" \
             class=\"title\">{}</text>\n",
            escape(self.title),
            escape(self.title)
        );
        self.grid(&x, &y, &mut out);
        for (number, series) in self.series.iter().enumerate() {
            line(series, number, &x, &y, &mut out);
        }
        out.push_str("</svg>\n");
        out
    }

    fn grid(&self, x: &Axis, y: &Axis, out: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, text) in x.ticks() {
            let at = LEFT + x.share(value) * (right - LEFT);
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\"/>"
            );
            let _ = writeln!(
                out,
                "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
                bottom + 16.0
            );
        }
        for (value, text) in y.ticks() {
            let at = bottom - y.share(value) * (bottom - TOP);
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>"
            );
            let _ = writeln!(
                out,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                LEFT - 6.0,
                at + 4.0
            );
        }
        let middle = f64::midpoint(TOP, bottom);
        let _ = writeln!(
            out,
            "<text x=\"{right}\" y=\"{}\" text-anchor=\"end\" class=\"label\">{}</text>\n\
             <text x=\"14\" y=\"{middle}\" text-anchor=\"middle\" class=\"label\" \
             transform=\"rotate(-90 14 {middle})\">{}</text>",
            bottom + 32.0,
            escape(self.x_label),
            escape(self.y_label)
        );
    }
}

fn line(series: &Series, number: usize, x: &Axis, y: &Axis, out: &mut String) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let (colour, dash) = (COLOURS[number % COLOURS.len()], DASHES[number % DASHES.len()]);
    let mut path = String::new();
    for (at_x, at_y) in &series.points {
        if !x.scale.place(*at_x).is_finite() || !y.scale.place(*at_y).is_finite() {
            continue;
        }
        let step = if path.is_empty() { 'M' } else { 'L' };
        let (left, top) = (LEFT + x.share(*at_x) * (right - LEFT), bottom - y.share(*at_y) * (bottom - TOP));
        let _ = write!(path, "{step}{left:.1} {top:.1} ");
    }
    let style = format!("stroke=\"{colour}\" stroke-dasharray=\"{dash}\"");
    let _ = writeln!(out, "<path d=\"{path}\" fill=\"none\" stroke-width=\"2\" {style}/>");
    let (column, row) = ((number % 4) as f64, (number / 4) as f64);
    let (left, top) = (LEFT + column * 138.0, HEIGHT - 22.0 + row * 14.0);
    let _ = writeln!(
        out,
        "<line x1=\"{left}\" y1=\"{top}\" x2=\"{}\" y2=\"{top}\" stroke-width=\"2\" {style}/>\
         <text x=\"{}\" y=\"{}\">{}</text>",
        left + 24.0,
        left + 30.0,
        top + 4.0,
        escape(&series.name)
    );
}

/// Text for HTML and SVG.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::{Axis, Chart, Scale, Series, escape};

    #[test]
    fn axes_end_on_round_values_and_hold_all_points() {
        let labels = |axis: &Axis| axis.ticks().into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        let linear = Axis::of(Scale::Linear, [3.0, 97.0].into_iter());
        assert_eq!(labels(&linear), ["0", "20", "40", "60", "80", "100"]);
        let logarithmic = Axis::of(Scale::Logarithmic, [30.0, 20_000.0].into_iter());
        assert_eq!(labels(&logarithmic), ["10", "100", "1000", "10k", "100k"]);
        let narrow = Axis::of(Scale::Logarithmic, [30.0, 80.0].into_iter());
        assert_eq!(labels(&narrow), ["10", "20", "50", "100"]);
        let quantile = Axis::of(Scale::Quantile, [0.5, 0.9995].into_iter());
        assert_eq!(labels(&quantile), ["0", "90 %", "99 %", "99.9 %"]);
    }

    #[test]
    fn empty_and_flat_series_still_make_a_chart() {
        for points in [vec![], vec![(1.0, 0.0)], vec![(1.0, 5.0), (2.0, 5.0)]] {
            let series = vec![Series { name: "a<b".to_owned(), points }];
            let (x, y) = (Scale::Linear, Scale::Logarithmic);
            let svg = Chart { title: "t", x_label: "x", y_label: "y", x, y, series }.svg();
            assert!(svg.starts_with("<svg") && svg.contains("a&lt;b") && !svg.contains("NaN"), "{svg}");
        }
        assert_eq!(escape("<&\">"), "&lt;&amp;&quot;&gt;");
    }
}
