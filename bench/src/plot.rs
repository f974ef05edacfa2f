//! The plots: SVG with a white background, to be readable everywhere.

use std::path::Path;

use plotters::prelude::{
    ChartBuilder, IntoDrawingArea, IntoLogRange, LineSeries, PathElement, RGBColor, SVGBackend,
    Text, WHITE,
};
use plotters::style::{Color, ShapeStyle};

use crate::burst::{BenchOperation, Result};
use crate::contender::Contender;
use crate::rounds::{Measured, Workload};
use crate::shown::{shown_bytes, shown_count, shown_time};

/// The file names of the plots, with their titles.
pub const PLOTS: [(&str, &str); 4] = [
    ("add-by-size.svg", "Add a message: latency by size"),
    (
        "get-by-size.svg",
        "Get the last 10 messages: latency by size",
    ),
    (
        "get-by-length.svg",
        "Get a whole session, messages of 200 B: latency by length",
    ),
    (
        "add-by-callers.svg",
        "Add 200 B: throughput by concurrent callers",
    ),
];

/// Draws all plots.
///
/// # Errors
///
/// Fails when a file cannot be written.
pub fn draw(all: &[Measured], folder: &Path) -> Result<()> {
    let count = |number: &f64| shown_count(number.round() as usize);
    let time = |nanoseconds: &f64| shown_time(*nanoseconds);
    let [add_by_size, get_by_size, get_by_length, add_by_callers] = PLOTS;
    let size = Axis {
        title: "content of a message",
        of: |workload| workload.content as f64,
        base: 10.0,
        label: &|bytes: &f64| shown_bytes(*bytes),
    };
    Plot {
        name: add_by_size,
        workloads: |workload| workload.operation == BenchOperation::Add && workload.callers == 1,
        x: size,
        y_title: "p50, one caller",
        y_label: &time,
        y_of: Y::P50,
    }
    .draw(all, folder)?;
    Plot {
        name: get_by_size,
        workloads: |workload| {
            workload.operation == BenchOperation::Get
                && workload.last == 10
                && workload.callers == 1
        },
        x: size,
        y_title: "p50, one caller",
        y_label: &time,
        y_of: Y::P50,
    }
    .draw(all, folder)?;
    Plot {
        name: get_by_length,
        workloads: |workload| {
            workload.operation == BenchOperation::Get
                && workload.content == 200
                && workload.callers == 1
        },
        x: Axis {
            title: "messages of the session",
            of: |workload| f64::from(workload.last),
            base: 10.0,
            label: &count,
        },
        y_title: "p50, one caller",
        y_label: &time,
        y_of: Y::P50,
    }
    .draw(all, folder)?;
    Plot {
        name: add_by_callers,
        workloads: |workload| workload.operation == BenchOperation::Add && workload.content == 200,
        x: Axis {
            title: "concurrent callers",
            of: |workload| workload.callers as f64,
            base: 8.0,
            label: &count,
        },
        y_title: "operations a second",
        y_label: &count,
        y_of: Y::Rate,
    }
    .draw(all, folder)
}

/// A plot with logarithmic axes.
struct Plot<'a> {
    /// The file name and the title.
    name: (&'static str, &'static str),
    workloads: fn(Workload) -> bool,
    x: Axis<'a>,
    y_title: &'static str,
    y_label: &'a dyn Fn(&f64) -> String,
    y_of: Y,
}

/// The horizontal axis: a parameter of the workloads.
#[derive(Clone, Copy)]
struct Axis<'a> {
    title: &'static str,
    of: fn(Workload) -> f64,
    /// The base of the logarithm for the ticks.
    base: f64,
    label: &'a dyn Fn(&f64) -> String,
}

/// The value of a row that is drawn.
#[derive(Clone, Copy)]
enum Y {
    P50,
    Rate,
}

impl Plot<'_> {
    fn draw(&self, all: &[Measured], folder: &Path) -> Result<()> {
        let lines: Vec<(Contender, Vec<(f64, f64)>)> = Contender::ALL
            .into_iter()
            .map(|contender| (contender, self.points(all, contender)))
            .filter(|(_, points)| points.len() > 1)
            .collect();
        let points = || lines.iter().flat_map(|(_, points)| points);
        let (file, title) = self.name;
        let path = folder.join(file);
        let area = SVGBackend::new(&path, (960, 500)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 22))
            .margin(14)
            .margin_right(LEGEND_WIDTH)
            .x_label_area_size(50)
            .y_label_area_size(84)
            .build_cartesian_2d(
                around(points().map(|point| point.0))
                    .log_scale()
                    .base(self.x.base),
                around(points().map(|point| point.1)).log_scale(),
            )?;
        chart
            .configure_mesh()
            .x_desc(self.x.title)
            .y_desc(self.y_title)
            .x_label_formatter(self.x.label)
            .y_label_formatter(self.y_label)
            .label_style(FONT)
            .axis_desc_style(("sans-serif", 16))
            .light_line_style(WHITE)
            .draw()?;
        for (number, (contender, points)) in (0..).zip(lines) {
            let style = style(contender);
            chart.draw_series(LineSeries::new(points, style).point_size(3))?;
            let (x, y) = (960 - LEGEND_WIDTH + 14, 70 + number * 24);
            area.draw(&PathElement::new([(x, y), (x + 18, y)], style))?;
            area.draw(&Text::new(contender.name(), (x + 26, y - 6), FONT))?;
        }
        area.present()?;
        Ok(())
    }

    fn points(&self, all: &[Measured], contender: Contender) -> Vec<(f64, f64)> {
        let mut points: Vec<(f64, f64)> = all
            .iter()
            .filter(|measured| (self.workloads)(measured.workload))
            .filter_map(|measured| {
                let row = measured.row(contender)?;
                let y = match self.y_of {
                    Y::P50 => row.p50,
                    Y::Rate => row.rate,
                };
                Some(((self.x.of)(measured.workload), y))
            })
            .collect();
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        points
    }
}

const LEGEND_WIDTH: i32 = 190;
const FONT: (&str, i32) = ("sans-serif", 14);

/// Returns a range that includes the values, with some margin.
fn around(values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let (least, greatest) = values.fold((f64::MAX, f64::MIN), |(least, greatest), value| {
        (least.min(value), greatest.max(value))
    });
    least * 0.8..greatest * 1.25
}

/// Returns the color and width of a line. The colors are from Okabe and Ito's palette,
/// which is readable with any kind of color vision.
fn style(contender: Contender) -> ShapeStyle {
    let (color, width) = match contender {
        Contender::Floor => (RGBColor(120, 120, 120), 2),
        Contender::FloorAtMostOnce => (RGBColor(180, 180, 180), 2),
        Contender::RedisRs => (RGBColor(0, 114, 178), 2),
        Contender::Fred => (RGBColor(86, 180, 233), 2),
        Contender::ExactlyOnce => (RGBColor(213, 94, 0), 3),
        Contender::AtMostOnce => (RGBColor(230, 159, 0), 3),
        Contender::RedisPy => (RGBColor(0, 158, 115), 2),
        Contender::LangChain => (RGBColor(204, 121, 167), 2),
    };
    color.stroke_width(width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_a_margin_around_its_values() {
        assert_eq!(around([20.0, 10.0, 40.0].into_iter()), 8.0..50.0);
    }
}
