//! The distribution of latencies as a picture: latency over percentile, so that the tail has as much room as the middle.

use std::path::Path;

use plotters::prelude::*;
use tidelog::disk::{self, RealDisk};

use super::latencies::Latencies;
use super::outcome::Outcome;
use crate::cli::failure::Failure;

/// Writes an SVG file.
///
/// # Errors
/// There are no latencies to draw, or the file cannot be written.
pub fn write(path: &Path, outcome: &Outcome) -> Result<(), Failure> {
    let Some(latency) = outcome.latency.as_ref().filter(|latency| latency.count() > 0) else {
        return Err(Failure::Failed("this work has no latencies to plot".to_owned()));
    };
    let drawn = draw(latency, &outcome.title).map_err(|error| Failure::Failed(format!("cannot draw: {error}")))?;
    disk::replace_file(&RealDisk, path, drawn.as_bytes())
        .map_err(|error| Failure::Failed(format!("cannot write '{}': {error}", path.display())))
}

/// "Nines" of a quantile: 0.9 is 1, 0.99 is 2.
fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).max(1e-6).log10()
}

fn draw(latency: &Latencies, title: &str) -> Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (900, 500)).into_drawing_area();
        root.fill(&WHITE)?;
        let top = latency.max().max(1) as f64;
        let most = nines(1.0 - 1.0 / latency.count() as f64).clamp(1.0, 6.0);
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..most, (1.0..top * 1.2).log_scale())?;
        chart
            .configure_mesh()
            .x_desc("percentile")
            .y_desc("microseconds")
            .x_labels(7)
            .x_label_formatter(&|nines: &f64| format!("{}", 100.0 - 100.0 / 10f64.powf(*nines)))
            .draw()?;
        let points = (0..=400).map(|at| {
            let nines = most * f64::from(at) / 400.0;
            (nines, latency.at(1.0 - 10f64.powf(-nines)).max(1) as f64)
        });
        chart.draw_series(LineSeries::new(points, BLUE.stroke_width(2)))?;
        root.present()?;
    }
    Ok(svg)
}
