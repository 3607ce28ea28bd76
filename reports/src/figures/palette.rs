//! Colours as roles. plotters writes a role as a sentinel colour; the canvas
//! turns it into a class, and the style sheet gives that class its colour for
//! light, dark and print.

use ioasim_sim::results::RunResult;
use plotters::style::RGBColor;

use crate::config::{Nesting, nesting};

/// Classes of the configurations' colours, by nesting: greys for `none`, blues
/// for hardware, warm colours for software.
const SLOTS: [&str; 10] = ["n0", "n1", "h0", "h1", "h2", "s0", "s1", "s2", "s3", "s4"];

/// A configuration's colour and dash pattern: an index of [`SLOTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(u8);

impl Slot {
    /// The first of two things that are no configurations: blue, a plain line.
    pub(crate) const FIRST: Slot = Slot(2);
    /// The second: orange, dashed.
    pub(crate) const SECOND: Slot = Slot(5);

    /// The slot of a parent-change policy, or of no policy: the reverse maps
    /// are blue, like hardware; what looks at everything is warm.
    pub(crate) fn of_policy(name: &str) -> Slot {
        let class = match name {
            "flush-all" => "s0",
            "scan" => "s1",
            "rmap" => "h1",
            "rmap-interval" => "s4",
            "rmap-linked" => "h0",
            "epoch" => "s2",
            _ => "n0",
        };
        Slot(SLOTS.iter().position(|s| *s == class).unwrap_or(0) as u8)
    }
}

/// One slot per run; runs of the same nesting get different slots as long as
/// there are any.
pub(crate) fn slots<'a>(runs: impl Iterator<Item = &'a RunResult>) -> Vec<Slot> {
    let mut used = [0u8; 3];
    runs.map(|run| {
        let (family, base, len) = match nesting(run) {
            Nesting::None | Nesting::Unknown => (0, 0, 2),
            Nesting::Hardware => (1, 2, 3),
            Nesting::Software => (2, 5, 5),
        };
        let slot = Slot(base + used[family] % len);
        used[family] = used[family].wrapping_add(1) % len;
        slot
    })
    .collect()
}

/// Name of a slot in the style sheet.
pub(crate) fn slot_class(slot: Slot) -> &'static str {
    SLOTS[usize::from(slot.0)]
}

/// What a colour is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Text.
    Ink,
    /// Less important text: ticks, units.
    Quiet,
    /// Grid lines.
    Grid,
    /// The zero line.
    Axis,
    /// A line from a curve to its name.
    Lead,
    /// Marker lines of the trace.
    Mark,
    /// Volume behind a curve.
    Shade,
    /// A configuration.
    Run(Slot),
    /// A configuration, as the translucent area below its curve.
    RunArea(Slot),
    /// A configuration, as the solid upper edge of its area.
    RunEdge(Slot),
    /// A miss cause: cold, capacity, conflict, invalidation.
    Cause(u8),
    /// A part of a whole of time, 0 to 6.
    Part(u8),
}

const PLAIN: [(Role, &str); 7] = [
    (Role::Ink, "ink"),
    (Role::Quiet, "quiet"),
    (Role::Grid, "grid"),
    (Role::Axis, "axis"),
    (Role::Lead, "lead"),
    (Role::Mark, "mark"),
    (Role::Shade, "shade"),
];

/// Colours of parts of time.
const PARTS: u8 = 7;

/// The first two bytes of every sentinel.
const SENTINEL: (u8, u8) = (0x01, 0xfe);

impl Role {
    /// The sentinel colour that stands for the role in plotters' output.
    pub(super) fn sentinel(self) -> RGBColor {
        let code = match self {
            Role::Run(slot) => 0x20 + slot.0,
            Role::RunArea(slot) => 0x30 + slot.0,
            Role::RunEdge(slot) => 0x50 + slot.0,
            Role::Cause(i) => 0x40 + i,
            Role::Part(i) => 0x60 + i,
            plain => PLAIN.iter().position(|(r, _)| *r == plain).map_or(0, |i| i as u8),
        };
        RGBColor(SENTINEL.0, SENTINEL.1, code)
    }
}

/// All sentinels as plotters prints them, with the class that replaces each.
pub(super) fn classes() -> Vec<(String, String)> {
    let hex = |role: Role| {
        let RGBColor(r, g, b) = role.sentinel();
        format!("#{r:02X}{g:02X}{b:02X}")
    };
    let mut out: Vec<(String, String)> =
        PLAIN.iter().map(|(role, class)| (hex(*role), (*class).to_owned())).collect();
    for (i, name) in SLOTS.iter().enumerate() {
        out.push((hex(Role::Run(Slot(i as u8))), format!("r-{name}")));
        out.push((hex(Role::RunArea(Slot(i as u8))), format!("a-{name}")));
        out.push((hex(Role::RunEdge(Slot(i as u8))), format!("e-{name}")));
    }
    for i in 0..4 {
        out.push((hex(Role::Cause(i)), format!("c{i}")));
    }
    for i in 0..PARTS {
        out.push((hex(Role::Part(i)), format!("d{i}")));
    }
    out
}

/// Hatches of the miss causes and of parts of time, so that they are told apart without colour;
/// the page holds them once.
pub(crate) const PATTERNS: &str = r#"<svg class="patterns" width="0" height="0" aria-hidden="true" focusable="false"><defs>
<pattern id="hatch1" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="7" height="7" class="p1"/><rect width="2" height="7" class="pl"/></pattern>
<pattern id="hatch2" width="6" height="6" patternUnits="userSpaceOnUse"><rect width="6" height="6" class="p2"/><circle cx="3" cy="3" r="1.4" class="pl"/></pattern>
<pattern id="hatch3" width="5" height="5" patternUnits="userSpaceOnUse"><rect width="5" height="5" class="q1"/><circle cx="2.5" cy="2.5" r="1.2" class="pl"/></pattern>
<pattern id="hatch4" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)"><rect width="7" height="7" class="q2"/><rect width="2.5" height="7" class="pl"/></pattern>
<pattern id="hatch5" width="6" height="6" patternUnits="userSpaceOnUse"><rect width="6" height="6" class="q4"/><rect width="2" height="6" class="pl"/></pattern>
<pattern id="hatch6" width="6" height="6" patternUnits="userSpaceOnUse"><rect width="6" height="6" class="q6"/><rect width="6" height="2" class="pl"/></pattern>
</defs></svg>"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentinels_are_distinct() {
        let mut hex: Vec<String> = classes().into_iter().map(|(h, _)| h).collect();
        let n = hex.len();
        hex.sort();
        hex.dedup();
        assert_eq!((hex.len(), n), (48, 48));
    }
}
