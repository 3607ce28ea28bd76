//! Closed forms of queueing theory, and errors of simulated means.

/// Mean wait of M/D/k in units of the service time (Crommelin 1934):
/// sum over i of e^(-iA) [ sum_{j>=ik} (iA)^j/j! - (1/rho) sum_{j>ik} (iA)^j/j! ],
/// A = k rho.
pub fn crommelin(k: u64, rho: f64) -> f64 {
    let a = k as f64 * rho;
    let mut wait = 0.0;
    for i in 1..8000u64 {
        let mean = i as f64 * a;
        // Poisson probabilities from ik upwards, by logarithms.
        let first = i * k;
        let ln_factorial: f64 = (1..=first).map(|n| (n as f64).ln()).sum();
        let mut p = (first as f64 * mean.ln() - mean - ln_factorial).exp();
        let (mut from, mut beyond) = (p, 0.0);
        for j in first + 1.. {
            p *= mean / j as f64;
            from += p;
            beyond += p;
            if p < 1e-18 {
                break;
            }
        }
        let term = from - beyond / rho;
        wait += term;
        if i > 10 && term.abs() < 1e-12 {
            break;
        }
    }
    wait
}

/// Mean of independent values and its standard error.
pub fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}
