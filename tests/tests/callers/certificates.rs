//! Certificates that prove nothing.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use krb_proto::v1;
use krb_tests::world::{
    World,
    api::{Api, reason},
    pki::{self, Subject},
};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::{Story, world};

/// How a caller with this certificate is answered: with a reason, or not at all.
async fn answer(world: &World, name: &str) -> String {
    let api = match Api::connect(world.broker.address(), &world.pki, name).await {
        Ok(api) => api,
        Err(_) => return "refused".to_owned(),
    };
    let request = v1::ReleaseRequest::default();
    match api.nodes().release(request).await {
        Ok(_) => "answered".to_owned(),
        Err(status) if reason(&status).is_empty() => "refused".to_owned(),
        Err(status) => reason(&status),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_nodes_own_certificate_makes_a_node() -> Story {
    let mut world = world(&["node-a"])?;
    let good = Subject::node("system:node:node-c");
    let rows: [(&str, &str, Subject<'_>, &str); 14] = [
        // A good one passes, and is told that its request is malformed.
        ("good", "node", good.clone(), "INVALID_ARGUMENT"),
        ("of a strange CA", "stranger", good.clone(), "refused"),
        ("of the broker's CA", "broker", good.clone(), "refused"),
        ("of the operators' CA", "operator", good.clone(), "ROLE_NOT_ALLOWED"),
        ("of the viewers' CA", "viewer", good.clone(), "ROLE_NOT_ALLOWED"),
        ("expired", "node", Subject { expired: true, ..good.clone() }, "refused"),
        (
            "for no clients",
            "node",
            Subject { for_clients: false, ..good.clone() },
            "UNAUTHENTICATED",
        ),
        ("of no group", "node", Subject { organisation: None, ..good.clone() }, "UNAUTHENTICATED"),
        (
            "of another group",
            "node",
            Subject { organisation: Some("system:masters"), ..good.clone() },
            "UNAUTHENTICATED",
        ),
        ("of no node", "node", Subject::node("olga"), "UNAUTHENTICATED"),
        ("of an empty node", "node", Subject::node("system:node:"), "UNAUTHENTICATED"),
        ("of a path", "node", Subject::node("system:node:../a"), "UNAUTHENTICATED"),
        ("in capitals", "node", Subject::node("System:Node:node-a"), "UNAUTHENTICATED"),
        ("with more", "node", Subject::node("system:node:node-a/x"), "UNAUTHENTICATED"),
    ];
    let mut wrong = Vec::new();
    for (row, role, subject, expected) in rows {
        world.pki.issue(role, "probe", &subject)?;
        let said = answer(&world, "probe").await;
        if said != expected {
            wrong.push(format!("{row}: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let denied = world.broker.audited("call.denied");
    assert_eq!(denied.len(), 5, "one line for each kind that came through: {denied:#?}");
    world.serves_on("good", "node-a").await?;
    world.broker.stop()?; // and what was merged is told at the end
    let denied = world.broker.audited("call.denied");
    let told: u64 = denied.iter().map(|line| line["count"].as_u64().unwrap_or(1)).sum();
    assert_eq!(told, 10, "each is counted: {denied:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_with_two_names_is_nobodys() -> Story {
    let world = world(&["node-a"])?;
    // The same attribute by its number, which the library takes for another one.
    let second = DnType::CustomDnType(vec![2, 5, 4, 3]);
    for (role, names) in
        [("node", ["system:node:node-a", "system:node:node-b"]), ("operator", ["olga", "oscar"])]
    {
        let mut params = CertificateParams::default();
        if role == "node" {
            params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        }
        params.distinguished_name.push(DnType::CommonName, names[0]);
        params.distinguished_name.push(second.clone(), names[1]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        world.pki.sign(role, "two", params)?;
        assert_eq!(answer(&world, "two").await, "UNAUTHENTICATED", "{role}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_a_certificate_gets_no_answer() -> Story {
    let world = world(&["node-a"])?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(world.pki.ca("broker"))?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connection = rustls::ClientConnection::new(Arc::new(config), pki::BROKER.try_into()?)?;
    let tcp = TcpStream::connect(world.broker.address())?;
    tcp.set_read_timeout(Some(Duration::from_secs(15)))?;
    let mut tls = rustls::StreamOwned::new(connection, tcp);
    let _ = tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let mut said = [0; 64];
    match tls.read(&mut said) {
        Ok(0) => {}
        Ok(length) => panic!("was answered with {length} bytes"),
        Err(error) if error.to_string().contains("CertificateRequired") => {}
        Err(error) => panic!("{error}"),
    }
    world.serves_on("good", "node-a").await?;
    Ok(())
}
