//! One network name, one configuration: shared by all of its attachments or by none.

use super::error::{Error, Kind};
use super::request::Request;
use super::stop::is_served;
use super::store::Candidates;

/// Refuses an attachment that is shared if its network has attachments that are not, and the other
/// way around: the two could not reach each other, and no message would tell why.
///
/// Each attachment is recorded before this check, so at most one of two that begin at the same
/// moment stays. Records of killed keepers do not count.
///
/// # Errors
/// [`Kind::Unsupported`], with the other attachment.
pub(crate) fn refuse_mixture(request: &Request, candidates: &Candidates) -> Result<(), Error> {
    let is_shared = request.shared.is_some();
    for store in candidates.existing() {
        for record in store.records() {
            let other = &record.request;
            if other.network != request.network
                || other.shared.is_some() == is_shared
                // Its keeper may not be visible, and only reachable through its socket.
                || !(record.is_alive() || is_served(&store.files(&other.key)).is_some())
            {
                continue;
            }
            let (network, key) = (&other.network, &other.key);
            let message = format!(
                "the network {network} is in use with another configuration: shared is {}, not \
                 {is_shared}, for {key}",
                !is_shared
            );
            let hint = "all containers of one network name agree on \"shared\": remove the others \
                        first, or give one of the two networks another name";
            return Err(Error::new(Kind::Unsupported, message).with_hint(Some(hint)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::attachment::identity::ProcessIdentity;
    use crate::attachment::key::Key;
    use crate::attachment::record::{Form, Record};
    use crate::attachment::request::tests::example;
    use crate::attachment::store::tests::Scratch;

    #[test]
    fn network_is_shared_by_all_of_its_living_attachments_or_by_none() {
        let scratch = Scratch::new("mixture");
        let candidates = Candidates::new(Some(&scratch.0));
        let store = candidates.create().unwrap();
        let shared = example();
        let alone = Request {
            key: Key { container_id: "c2".to_owned(), ifname: "eth0".to_owned() },
            shared: None,
            ..example()
        };
        let living = ProcessIdentity::of_pid(std::process::id().cast_signed()).unwrap();
        let mut dead = serde_json::to_value(&living).unwrap();
        dead["startTime"] = json!(1);
        let dead: ProcessIdentity = serde_json::from_value(dead).unwrap();
        let write = |request: &Request, keeper: &ProcessIdentity| {
            let (request, keeper) = (request.clone(), keeper.clone());
            let files = store.files(&request.key);
            let (engine, mac) = (None, String::new());
            files.write_record(&Record { form: Form, request, keeper, engine, mac }).unwrap();
            files
        };
        let files = write(&alone, &living);
        let refused = refuse_mixture(&shared, &candidates);
        let other_network = Request { network: "other".to_owned(), ..example() };
        let elsewhere = refuse_mixture(&other_network, &candidates);
        let same = refuse_mixture(&alone, &candidates);
        write(&alone, &dead);
        let after_a_crash = refuse_mixture(&shared, &candidates);
        files.remove();
        write(&shared, &living);
        let the_other_way = refuse_mixture(&alone, &candidates);
        let error = refused.unwrap_err();
        assert_eq!(error.kind, Kind::Unsupported);
        assert_eq!(
            error.message,
            "the network net is in use with another configuration: shared is false, not true, for \
             c2 eth0"
        );
        assert_eq!((elsewhere, same, after_a_crash), (Ok(()), Ok(()), Ok(())));
        assert!(the_other_way.unwrap_err().message.contains("shared is true, not false, for c1"));
    }
}
