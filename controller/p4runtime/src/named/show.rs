//! A named entity as the line that means it.

use std::fmt;

use super::words::quoted;
use super::*;

impl fmt::Display for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.0.iter().enumerate() {
            let blank = if at == 0 { "" } else { " " };
            write!(f, "{blank}{name}={}", quoted(value))?;
        }
        Ok(())
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.action)?;
        with_blank(f, &self.params)
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(call) => write!(f, "do {call}"),
            Self::Member { member } => write!(f, "do member={member}"),
            Self::Group { group } => write!(f, "do group={group}"),
            Self::OneShot { one_shot } => {
                for (at, member) in one_shot.iter().enumerate() {
                    let blank = if at == 0 { "" } else { " " };
                    write!(f, "{blank}do {}x", member.weight)?;
                    if let Some(port) = &member.watch_port {
                        write!(f, "@{port}")?;
                    }
                    write!(f, " {}", member.call)?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--packets {} --bytes {}", self.packets, self.bytes)
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "--cir {} --cburst {} --pir {} --pburst {}",
            self.cir, self.cburst, self.pir, self.pburst
        )?;
        match self.eburst {
            0 => Ok(()),
            eburst => write!(f, " --eburst {eburst}"),
        }
    }
}

impl Entry {
    /// Table and match: what a change of the entry leaves alone.
    pub fn key(&self) -> String {
        let mut key = self.table.clone();
        if !self.matches.0.is_empty() {
            key += &format!(" {}", self.matches);
        }
        if self.priority != 0 {
            key += &format!(" --priority {}", self.priority);
        }
        key
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.table)?;
        with_blank(f, &self.matches)?;
        if let Some(action) = &self.action {
            write!(f, " {action}")?;
        }
        if self.priority != 0 {
            write!(f, " --priority {}", self.priority)?;
        }
        if let Some(timeout) = &self.idle_timeout {
            write!(f, " --idle-timeout {timeout}")?;
        }
        if let Some(metadata) = &self.metadata {
            write!(f, " --metadata {metadata}")?;
        }
        if let Some(meter) = &self.meter {
            write!(f, " {meter}")?;
        }
        if let Some(counter) = &self.counter {
            write!(f, " {counter}")?;
        }
        Ok(())
    }
}

fn with_blank(f: &mut fmt::Formatter<'_>, pairs: &Pairs) -> fmt::Result {
    match pairs.0.is_empty() {
        true => Ok(()),
        false => write!(f, " {pairs}"),
    }
}

fn index(f: &mut fmt::Formatter<'_>, index: Option<i64>) -> fmt::Result {
    match index {
        Some(index) => write!(f, " {index}"),
        None => Ok(()),
    }
}

fn ports(f: &mut fmt::Formatter<'_>, ports: &[String]) -> fmt::Result {
    ports.iter().try_for_each(|port| write!(f, " port={port}"))
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(entry) => write!(f, "table {entry}"),
            Self::Default(entry) => write!(f, "default {entry}"),
            Self::DirectCounter(entry) => write!(f, "direct-counter {entry}"),
            Self::DirectMeter(entry) => write!(f, "direct-meter {entry}"),
            Self::Member(member) => {
                write!(f, "member {} {}", member.profile, member.id)?;
                match &member.call {
                    Some(call) => write!(f, " do {call}"),
                    None => Ok(()),
                }
            }
            Self::Group(group) => {
                write!(f, "group {} {}", group.profile, group.id)?;
                for member in &group.members {
                    match member.weight {
                        1 => write!(f, " member={}", member.id)?,
                        weight => write!(f, " member={weight}x{}", member.id)?,
                    }
                    if let Some(port) = &member.watch_port {
                        write!(f, "@{port}")?;
                    }
                }
                match group.max_size {
                    0 => Ok(()),
                    size => write!(f, " --max-size {size}"),
                }
            }
            Self::Counter(cell) => {
                write!(f, "counter {}", cell.counter)?;
                index(f, cell.index)?;
                cell.count
                    .iter()
                    .try_for_each(|count| write!(f, " {count}"))
            }
            Self::Meter(cell) => {
                write!(f, "meter {}", cell.meter)?;
                index(f, cell.index)?;
                cell.rates
                    .iter()
                    .try_for_each(|rates| write!(f, " {rates}"))
            }
            Self::Register(cell) => {
                write!(f, "register {}", cell.register)?;
                index(f, cell.index)?;
                let mut value = cell.value.iter();
                value.try_for_each(|value| write!(f, " --value {}", quoted(value)))
            }
            Self::Multicast(group) => {
                write!(f, "multicast {}", group.id)?;
                ports(f, &group.ports)
            }
            Self::Clone(session) => {
                write!(f, "clone {}", session.id)?;
                ports(f, &session.ports)?;
                if session.length != 0 {
                    write!(f, " --length {}", session.length)?;
                }
                if session.class != 0 {
                    write!(f, " --class {}", session.class)?;
                }
                Ok(())
            }
            Self::Digest(digest) => write!(
                f,
                "digest {} --max-timeout {} --max-list {} --ack-timeout {}",
                digest.digest, digest.max_timeout, digest.max_list, digest.ack_timeout
            ),
            Self::ValueSet(set) => {
                write!(f, "value-set {}", set.value_set)?;
                for (at, member) in set.members.iter().enumerate() {
                    let or = if at == 0 { "" } else { "or " };
                    write!(f, " {or}{member}")?;
                }
                Ok(())
            }
            Self::Extern(entry) => write!(
                f,
                "extern {} --type-url {} --bytes-hex {}",
                entry.instance,
                quoted(&entry.type_url),
                quoted(&entry.bytes_hex)
            ),
        }
    }
}
