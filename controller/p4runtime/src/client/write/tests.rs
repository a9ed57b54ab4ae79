use proptest::prelude::*;

use super::*;

fn update(entry_bytes: usize) -> pb::Update {
    pb::Update {
        entity: Some(pb::Entity {
            entity: Some(pb::entity::Entity::TableEntry(pb::TableEntry {
                metadata: vec![1; entry_bytes],
                ..Default::default()
            })),
        }),
        ..Default::default()
    }
}

fn status(code: Code, errors: &[(&str, Vec<u8>)]) -> Status {
    let any = |(type_url, value): &(&str, Vec<u8>)| prost_types::Any {
        type_url: (*type_url).to_owned(),
        value: value.clone(),
    };
    let details = rpc::Status {
        code: code as i32,
        message: String::new(),
        details: errors.iter().map(any).collect(),
    };
    Status::with_details(code, "", details.encode_to_vec().into())
}

fn refusal(code: Code) -> (&'static str, Vec<u8>) {
    let error = pb::Error {
        canonical_code: code as i32,
        ..Default::default()
    };
    ("type.googleapis.com/p4.v1.Error", error.encode_to_vec())
}

#[test]
fn results_come_from_the_details_of_unknown_alone() {
    let mixed = status(Code::Unknown, &[refusal(Code::Ok), refusal(Code::NotFound)]);
    let results = decode_batch(&mixed, 2).unwrap().unwrap();
    assert_eq!(
        results.iter().map(code_of).collect::<Vec<_>>(),
        [Code::Ok, Code::NotFound]
    );
    let plain = Status::new(Code::Unknown, "x");
    assert_eq!(decode_batch(&plain, 2), Ok(None));
    let whole = status(Code::PermissionDenied, &[refusal(Code::Ok)]);
    assert_eq!(decode_batch(&whole, 1), Ok(None));
}

#[test]
fn results_that_do_not_fit_the_updates_are_refused() {
    let short = status(Code::Unknown, &[refusal(Code::NotFound)]);
    assert_eq!(
        decode_batch(&short, 2),
        Err("1 results for 2 updates".to_owned())
    );
    let other = status(Code::Unknown, &[("x/google.rpc.Help", Vec::new())]);
    assert_eq!(
        decode_batch(&other, 1),
        Err("a result is a \"x/google.rpc.Help\"".to_owned())
    );
    let broken = Status::with_details(Code::Unknown, "", vec![0xff].into());
    assert!(decode_batch(&broken, 1).is_err());
}

proptest! {
    #[test]
    fn batches_keep_order_and_limits(
        sizes in prop::collection::vec(0usize..400, 0..60),
        updates_max in 1usize..10,
        bytes_max in 50usize..1000,
    ) {
        let updates: Vec<_> = sizes.iter().map(|size| update(*size)).collect();
        let head = pb::WriteRequest { device_id: 1, ..Default::default() };
        let mut sent = Vec::new();
        while sent.len() < updates.len() {
            let rest = &updates[sent.len()..];
            let (request, count) = fill(&head, rest.iter(), updates_max, bytes_max);
            prop_assert!(count >= 1 && count <= updates_max);
            let bytes = request.len() - head.encoded_len();
            prop_assert!(count == 1 || bytes <= bytes_max);
            let request = pb::WriteRequest::decode(request).unwrap();
            prop_assert_eq!(request.device_id, 1);
            prop_assert_eq!(&request.updates, &rest[..count]);
            // And no batch ends before it must.
            if let Some(next) = rest.get(count) {
                let mut more = BytesMut::new();
                next.append_to(&mut more);
                prop_assert!(count == updates_max || bytes + more.len() > bytes_max);
            }
            sent.extend(request.updates);
        }
        prop_assert_eq!(sent, updates);
    }
}
