//! Bytes that come from a disk: any of them are read without a panic, and what was written is read as it was.

use proptest::prelude::*;

use super::super::checkpoint::Checkpoint;
use super::super::entry::{decode, encode};
use super::super::wire::{Reader, put_i64, put_u64};
use super::model::{Deed, Model};

proptest! {
    #[test]
    fn any_bytes_are_an_entry_or_malformed(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..50_u8) {
        let _ = decode(&bytes);
        let mut bytes = bytes;
        bytes.insert(0, kind);
        if let Ok(entry) = decode(&bytes) {
            // What is taken for an entry is one, to the last field.
            let mut again = Vec::new();
            encode(&entry, &mut again);
            prop_assert_eq!(decode(&again), Ok(entry));
        }
        let _ = Checkpoint::read(&bytes);
    }

    #[test]
    fn any_number_comes_back(number in any::<u64>(), signed in any::<i64>()) {
        let mut bytes = Vec::new();
        put_u64(&mut bytes, number);
        put_i64(&mut bytes, signed);
        let mut reader = Reader { bytes: &bytes, version: 2 };
        prop_assert_eq!((reader.u64(), reader.i64()), (Ok(number), Ok(signed)));
        prop_assert!(reader.end().is_ok());
    }
}

#[test]
fn every_kind_of_entry_comes_back_and_none_of_its_beginnings_is_one() {
    let mut model = Model::default();
    let accept = Deed::Accept { events: 7, padding: 3 };
    let deeds = [accept, Deed::Mark, Deed::Cut { events: 4 }, Deed::Make, Deed::Try, Deed::Undo, Deed::Done]
        .into_iter()
        .chain([Deed::Try, Deed::Fail, Deed::GiveUp])
        .chain([true, false].map(|fails| Deed::Compensate { fails }))
        .chain([Deed::Undone, Deed::Again, Deed::GiveUp, Deed::Split { events: 1 }])
        .chain([Deed::Settle { outcome: 1 }, Deed::Door, Deed::Shed { chunks: 0 }])
        .chain([Deed::Refuse { frames: 3, is_throttled: true }, Deed::Hear { of: 1 }]);
    let mut seen = 0;
    for deed in deeds {
        for entry in model.act("acme", deed) {
            let mut bytes = Vec::new();
            encode(&entry, &mut bytes);

            for len in 0..bytes.len() {
                let part = decode(&bytes[..len]);
                assert!(part.is_err(), "{len} bytes of {entry:?}");
            }
            assert_eq!(decode(&bytes), Ok(entry));
            seen += 1;
        }
    }
    assert_eq!(seen, 24);
}
