//! Frames on their way out, collected until there are enough to be sent together.

/// Frames that wait at most.
const MAX_FRAMES: usize = 256;
/// Their bytes at most, but for the last one's.
const MAX_BYTES: usize = 256 << 10;

/// Frames for ports, in order.
#[derive(Default)]
pub(crate) struct Burst {
    bytes: Vec<u8>,
    /// Each frame's port and where it ends.
    frames: Vec<(u32, usize)>,
}

impl Burst {
    pub(crate) fn push(&mut self, port: u32, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.frames.push((port, self.bytes.len()));
    }

    /// Whether it is to be sent before more is added.
    pub(crate) fn is_full(&self) -> bool {
        self.frames.len() >= MAX_FRAMES || self.bytes.len() >= MAX_BYTES
    }

    /// Hands each port its frames, in their order, and is empty then.
    pub(crate) fn drain(&mut self, mut send: impl FnMut(u32, &[&[u8]])) {
        let mut start = 0;
        let mut all = Vec::with_capacity(self.frames.len());
        for (port, end) in &self.frames {
            all.push((*port, self.bytes.get(start..*end).unwrap_or_default()));
            start = *end;
        }
        let mut frames = Vec::with_capacity(all.len());
        while let Some((port, _)) = all.first().copied() {
            frames.clear();
            all.retain(|(other, frame)| {
                let its = *other == port;
                if its {
                    frames.push(*frame);
                }
                !its
            });
            send(port, &frames);
        }
        self.bytes.clear();
        self.frames.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_gets_its_frames_in_order() {
        let mut burst = Burst::default();
        for (port, frame) in [(2, "a"), (1, "b"), (2, "c"), (3, ""), (1, "d")] {
            burst.push(port, frame.as_bytes());
        }
        let mut sent = Vec::new();
        burst.drain(|port, frames| sent.push((port, frames.concat(), frames.len())));
        let expected = [(2, "ac", 2), (1, "bd", 2), (3, "", 1)];
        let expected = expected.map(|(port, bytes, len)| (port, bytes.into(), len));
        assert_eq!(sent, expected);
        burst.drain(|_, _| panic!("it is empty"));
    }

    #[test]
    fn it_is_full_of_frames_or_of_bytes() {
        let mut burst = Burst::default();
        for _ in 1..MAX_FRAMES {
            burst.push(1, &[]);
        }
        assert!(!burst.is_full());
        burst.push(1, &[]);
        assert!(burst.is_full());
        burst.drain(|_, _| {});
        burst.push(1, &vec![0; MAX_BYTES]);
        assert!(burst.is_full());
    }
}
