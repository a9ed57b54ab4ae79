//! A record as text: one line a step, indented by what it belongs to.

use std::fmt::{self, Display};

use super::record::{Fields, KeyField, Outcome, Pass, Record, Step};

impl Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, value)) in self.0.iter().enumerate() {
            let gap = if i == 0 { "" } else { " " };
            write!(f, "{gap}{name}={value}")?;
        }
        Ok(())
    }
}

/// ` (file:line)`, if known.
struct At<'a>(&'a Option<String>);

impl Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(place) => write!(f, " ({place})"),
            None => Ok(()),
        }
    }
}

struct Copies<'a>(&'a [(u32, u32)]);

impl Display for Copies<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no copies");
        }
        f.write_str("copies to")?;
        for (port, instance) in self.0 {
            write!(f, " {port} (rid {instance})")?;
        }
        Ok(())
    }
}

impl Display for KeyField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)?;
        match &self.entry {
            Some(entry) if *entry != self.value => write!(f, " [{entry}]"),
            _ => Ok(()),
        }
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ParserState { state } => write!(f, "parser state {state}"),
            Self::Extract { header, fields } => write!(f, "  {header}: {fields}"),
            Self::ParserError { error } => write!(f, "  parser error {error}"),
            Self::VerifyChecksum { field, correct } => {
                let verdict = if *correct { "correct" } else { "wrong" };
                write!(f, "checksum {field} is {verdict}")
            }
            Self::Condition {
                text,
                source,
                holds,
            } => write!(f, "if {text}{}: {holds}", At(source)),
            Self::Table {
                table,
                source,
                key,
                result,
                priority,
                member,
                group,
                counted,
            } => {
                write!(f, "table {table}{}: {result}", At(source))?;
                if let Some(priority) = priority {
                    write!(f, ", priority {priority}")?;
                }
                if let Some(group) = group {
                    write!(f, ", group {group}")?;
                }
                if let Some(member) = member {
                    write!(f, ", member {member}")?;
                }
                if *counted {
                    f.write_str(", counted")?;
                }
                for part in key {
                    write!(f, "\n      {part}")?;
                }
                Ok(())
            }
            Self::NoAction => f.write_str("  no entry and no default action"),
            Self::Action { action, arguments } => write!(f, "  action {action}({arguments})"),
            Self::Statement {
                text,
                source,
                field,
                value,
                ..
            } => match (field, value) {
                (Some(field), Some(value)) if text.ends_with(field.as_str()) => {
                    write!(f, "    {field} = {value}{}", At(source))
                }
                (Some(field), Some(value)) => {
                    write!(f, "    {text}{}: {field} is {value}", At(source))
                }
                _ => write!(f, "    {text}{}", At(source)),
            },
            Self::Meter {
                meter,
                index,
                colour,
            } => match index {
                Some(index) => write!(f, "    meter {meter}[{index}]: {colour}"),
                None => write!(f, "  direct meter {meter}: {colour}"),
            },
            Self::Array {
                array,
                index,
                in_bounds,
            } => {
                let note = if *in_bounds { "" } else { " is out of bounds" };
                write!(f, "    {array}[{index}]{note}")
            }
            Self::Message { text } => write!(f, "    log: {text}"),
            Self::Failed { text } => write!(f, "    {text}"),
            Self::Forward { port, reason } => write!(f, "to egress port {port}: {reason}"),
            Self::Clone { session, copies } => match copies {
                Some(copies) => write!(f, "clone session {session}: {}", Copies(copies)),
                None => write!(f, "clone session {session} does not exist"),
            },
            Self::Multicast {
                group,
                copies,
                reason,
            } => {
                write!(f, "multicast group {group}: {}", Copies(copies))?;
                if reason.is_empty() {
                    return Ok(());
                }
                write!(f, ": {reason}")
            }
            Self::Digest { digest } => write!(f, "digest {digest}"),
            Self::Resubmit => f.write_str("resubmitted"),
            Self::Recirculate => f.write_str("recirculated"),
            Self::UpdateChecksum { field, value } => write!(f, "checksum {field} = {value}"),
        }
    }
}

impl Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {} port {}", self.pipeline, self.port)?;
        if self.instance != "normal" {
            write!(f, ", {}", self.instance)?;
        }
        if let Some(rid) = self.replication_id {
            write!(f, ", rid {rid}")?;
        }
        writeln!(f, ", {} bytes", self.bytes)?;
        self.steps
            .iter()
            .try_for_each(|step| writeln!(f, "    {step}"))
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = match self.result {
            "to_controller" => "to the controller",
            "no_port" => "lost, there is no such port:",
            "port_refused" => "lost, the port did not take it:",
            other => other,
        };
        f.write_str(said)?;
        if let (Some(port), Some(bytes)) = (self.port, self.bytes) {
            write!(f, " port {port}, {bytes} bytes")?;
        }
        write!(f, ": {}", self.reason)?;
        if !self.data.is_empty() {
            write!(f, "\n    {}", self.data)?;
        }
        Ok(())
    }
}

impl Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, rest) = (self.time_ns / 1_000_000_000, self.time_ns % 1_000_000_000);
        writeln!(
            f,
            "packet {} at {seconds}.{:06}: port {}, {} bytes",
            self.packet,
            rest / 1000,
            self.port,
            self.bytes
        )?;
        if !self.data.is_empty() {
            writeln!(f, "    {}", self.data)?;
        }
        for pass in &self.passes {
            write!(f, "{pass}")?;
        }
        for outcome in &self.outcomes {
            writeln!(f, "  {outcome}")?;
        }
        if self.steps_lost > 0 {
            writeln!(f, "  ({} more steps)", self.steps_lost)?;
        }
        Ok(())
    }
}
