//! What is fed of a dead letter: an event whose tenant and time are known, so that nobody decides them anew.

use headworks_actors::{Cause, Code, Decoded, Decoder, UnixMillis};

/// Appends the event as a length-prefixed frame; false where it is too large for one.
pub(super) fn push(frames: &mut Vec<u8>, event: &Decoded<'_>) -> bool {
    let Ok(tenant_len) = u8::try_from(event.tenant.len()) else { return false };
    let time = event.time.map_or([0; 9], |time| {
        let mut bytes = [1; 9];
        bytes[1..].copy_from_slice(&time.0.to_be_bytes());
        bytes
    });
    let Ok(len) = u32::try_from(1 + event.tenant.len() + time.len() + event.body.len()) else { return false };
    frames.extend(len.to_be_bytes());
    frames.push(tenant_len);
    frames.extend(event.tenant.as_bytes());
    frames.extend(time);
    frames.extend(&*event.body);
    true
}

/// Reads what [`push`] wrote.
pub(super) struct Known;

impl Decoder for Known {
    fn decode<'f>(&'f self, frame: &'f [u8]) -> Result<Decoded<'f>, Cause> {
        read(frame).ok_or_else(|| Cause::new(Code::BadEvent, "no frame of a replay"))
    }
}

fn read(frame: &[u8]) -> Option<Decoded<'_>> {
    let (len, rest) = frame.split_first()?;
    let (tenant, rest) = rest.split_at_checked(usize::from(*len))?;
    let (has_time, rest) = rest.split_first()?;
    let (time, body) = rest.split_first_chunk()?;
    let time = (*has_time == 1).then(|| UnixMillis(i64::from_be_bytes(*time)));
    Some(Decoded { tenant: std::str::from_utf8(tenant).ok()?.into(), time, body: body.into() })
}

#[cfg(test)]
mod tests {
    use headworks_actors::{Frame, Framer, Framing};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_event_comes_back_as_it_was(tenant in "[a-z0-9]{1,64}", time in any::<Option<i64>>(), body in any::<Vec<u8>>()) {
            let event = Decoded { tenant: tenant.into(), time: time.map(UnixMillis), body: body.into() };
            let mut frames = vec![];
            prop_assert!(push(&mut frames, &event));
            let mut framer = Framer::new(&Framing::LengthPrefixed { max_bytes: 1 << 20 });
            let mut position = 0;
            let Some(Frame::Complete(frame)) = framer.next(&frames, &mut position) else { panic!("no frame") };
            prop_assert_eq!(Known.decode(frame), Ok(event));
            prop_assert_eq!(position, frames.len());
        }

        #[test]
        fn other_bytes_do_not_panic(frame in any::<Vec<u8>>()) {
            let _ = Known.decode(&frame);
        }
    }
}
