use std::collections::BTreeMap;

use krb_proto::reason::Reason;
use proptest::prelude::*;

use crate::entitlement::{
    Denial,
    ask::{Ask, OPTIONS, ServiceAsk, TicketsAsk, options_of},
};

fn read(options: &[(&str, &str)]) -> Result<Ask, Denial> {
    Ask::from_options(&owned(options))
}

fn owned(options: &[(&str, &str)]) -> BTreeMap<String, String> {
    options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn an_ask_is_split_trimmed_and_its_hosts_are_lower_cased() {
    let ask = read(&[
        ("services", " HTTP, nfs ,HTTP/Web.Example.COM@EXAMPLE.COM"),
        ("prestashtkt", "tsfoo, tsbar"),
        ("externalclusters", "A.example.com"),
        ("userprefixedhostname", "true"),
        ("runasusername", "tsfoo"),
        ("certs", "false"),
    ])
    .unwrap();
    let host = "web.example.com".parse().unwrap();
    let realm = Some("EXAMPLE.COM".parse().unwrap());
    assert_eq!(
        ask.services,
        [
            ServiceAsk::Bare("HTTP".parse().unwrap()),
            ServiceAsk::Bare("nfs".parse().unwrap()),
            ServiceAsk::At("HTTP".parse().unwrap(), host, realm),
        ]
    );
    assert_eq!(
        ask.tickets,
        TicketsAsk::Of(vec!["tsfoo".parse().unwrap(), "tsbar".parse().unwrap()])
    );
    assert_eq!(ask.logical_hosts, ["a.example.com".parse().unwrap()]);
    assert!(ask.user_prefixed);
}

#[test]
fn what_is_not_an_ask_is_denied_with_its_reason_and_in_one_line() {
    use Reason::{AskEmpty, AskMalformed, NotSupported};
    let long = "a,".repeat(5_000);
    let many = (0..65).map(|i| format!("s{i}")).collect::<Vec<_>>().join(",");
    type Case<'a> = (&'a [(&'a str, &'a str)], Reason, &'a str);
    let cases: &[Case<'_>] = &[
        (&[], AskEmpty, "asks for nothing"),
        (&[("prestashtkt", "false")], AskEmpty, "asks for nothing"),
        (&[("services", "")], AskMalformed, "services has an empty entry"),
        (&[("services", "HTTP,,nfs")], AskMalformed, "services has an empty entry"),
        (&[("services", "HTTP,nfs,")], AskMalformed, "services has an empty entry"),
        (&[("services", "HTTP, HTTP")], AskMalformed, "\"HTTP\" is there twice"),
        (&[("services", "HTTP/a.b,HTTP/A.B")], AskMalformed, "\"HTTP/A.B\" is there twice"),
        (&[("services", "HTTP nfs")], AskMalformed, "is not a service"),
        (&[("services", "HTTP@R")], AskMalformed, "is not a service"),
        (&[("services", "HTTP#")], AskMalformed, "is not a service"),
        (&[("services", "HTTP/")], AskMalformed, "is not a host"),
        (&[("services", "HTTP/localhost")], AskMalformed, "is not a host"),
        (&[("services", "HTTP/a.b/c")], AskMalformed, "is not a host"),
        (&[("services", "HTTP/a.b@")], AskMalformed, "names no realm"),
        (&[("services", "HTTP/a.b@R@R")], AskMalformed, "realm"),
        (&[("services", "*")], AskMalformed, "is not a service"),
        (&[("services", "HT\nTP")], AskMalformed, "is not a service"),
        (&[("services", &long)], AskMalformed, "services is longer than 4096 bytes"),
        (&[("services", &many)], AskMalformed, "services has more than 64 entries"),
        (&[("prestashtkt", "True")], AskMalformed, "true and false stand alone, in lower case"),
        (&[("prestashtkt", "true,tsfoo")], AskMalformed, "\"true\" is not an account"),
        (&[("prestashtkt", "a/b")], AskMalformed, "is not a login"),
        (
            &[("services", "a"), ("userprefixedhostname", "yes")],
            AskMalformed,
            "neither true nor false",
        ),
        (&[("services", "a"), ("runasusername", "")], AskMalformed, "is not a login"),
        (&[("services", "a"), ("service", "b")], AskMalformed, "\"service\" is not an option"),
        (
            &[("services", "a"), ("csi.storage.k8s.io/pod.uid", "b")],
            AskMalformed,
            "is not an option",
        ),
        (&[("prestashtkt", "true"), ("externalclusters", "a.b")], AskMalformed, "need a service"),
        (
            &[("services", "a/b.c"), ("userprefixedhostname", "true")],
            AskMalformed,
            "need a service",
        ),
        (&[("certs", "true")], NotSupported, "certs is not supported yet"),
        (&[("services", "a"), ("krblocal", "")], NotSupported, "krblocal is not supported yet"),
        (&[("services", "a"), ("token", "False")], NotSupported, "token is not supported yet"),
    ];
    for (options, reason, message) in cases {
        let denial = read(options).unwrap_err();
        assert_eq!(denial.reason, *reason, "{options:?}");
        assert!(denial.message.contains(message), "{options:?}: {denial}");
        assert!(denial.message.len() < 300 && !denial.message.contains('\n'), "{denial}");
    }
}

#[test]
fn annotations_of_the_prefix_become_options_and_others_do_not() {
    let all =
        [("ts/services", "a"), ("tsx/services", "b"), ("ts/else", "c"), ("ts/prestashtxt", "true")];
    let options = options_of("ts", all).unwrap();
    assert_eq!(options, owned(&[("services", "a"), ("prestashtkt", "true")]));
    let both = [("ts/prestashtxt", "true"), ("ts/prestashtkt", "tsbar")];
    assert_eq!(options_of("ts", both).unwrap_err().reason, Reason::AskMalformed);
    let alike = [("ts/prestashtxt", "true"), ("ts/prestashtkt", "true")];
    assert_eq!(options_of("ts", alike).unwrap().len(), 1);
}

proptest! {
    #[test]
    fn no_options_panic_and_what_is_read_is_written_back_alike(
        options in prop::collection::btree_map(
            prop::sample::select(OPTIONS.to_vec()).prop_map(str::to_owned),
            prop_oneof!["\\PC{0,30}", "true|false", "[a-zA-Z]{1,4}(,[a-zA-Z]{1,4}(/[a-z]\\.[a-zA-Z]{1,3}(@[A-Z]{1,3})?)?){0,3}"],
            0..5,
        ),
    ) {
        match Ask::from_options(&options) {
            Ok(ask) => prop_assert_eq!(Ask::from_options(&ask.to_options()), Ok(ask)),
            Err(denial) => prop_assert!(!denial.message.contains('\n')),
        }
    }

    #[test]
    fn no_text_panics_the_parser_of_a_service(text in "\\PC{0,40}") {
        if let Ok(ask) = text.parse::<ServiceAsk>() {
            prop_assert_eq!(ask.to_string().parse::<ServiceAsk>(), Ok(ask));
        }
    }
}
