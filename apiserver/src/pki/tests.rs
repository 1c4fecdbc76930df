//! The files of a first start, what a second start leaves alone, and renewal in a running server.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn config(directory: &Path) -> PkiConfig {
    let mut config = PkiConfig::new(&Config::for_directory(directory), 6443);
    "node-1".clone_into(&mut config.node_name);
    config
}

#[test]
fn first_start_makes_every_file_private_and_the_second_changes_none() {
    let directory = tempfile::tempdir().unwrap();
    Pki::ensure(config(directory.path())).unwrap();
    let expected = [
        "kubeconfig",
        "kubeconfigs/kube-scheduler.kubeconfig",
        "kubeconfigs/kube-controller-manager.kubeconfig",
        "kubeconfigs/kubelet-node-1.kubeconfig",
        "pki/ca.crt",
        "pki/ca.key",
        "pki/apiserver.crt",
        "pki/apiserver.key",
        "pki/apiserver-kubelet-client.crt",
        "pki/apiserver-kubelet-client.key",
        "pki/kubelet-node-1.crt",
        "pki/kubelet-node-1.key",
        "pki/sa.key",
        "pki/sa.pub",
    ];
    let read = || expected.map(|file| std::fs::read(directory.path().join(file)).unwrap());
    let before = read();
    for file in expected {
        let mode = std::fs::metadata(directory.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    Pki::ensure(config(directory.path())).unwrap();
    assert!(read() == before);
}

#[test]
fn a_new_name_makes_a_new_serving_certificate_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::ensure(config(directory.path())).unwrap();
    let ca = pki.ca_pem().to_owned();
    let read = |file: &str| std::fs::read(directory.path().join(file)).unwrap();
    let (serving, admin) = (read("pki/apiserver.crt"), read("kubeconfig"));
    let mut wider = config(directory.path());
    wider.names.push("api.example".to_owned());
    let pki = Pki::ensure(wider).unwrap();
    assert_eq!(pki.ca_pem(), ca);
    assert_ne!(read("pki/apiserver.crt"), serving);
    assert_eq!(read("kubeconfig"), admin);
}

#[test]
fn renewal_reaches_the_running_listener() {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::ensure(config(directory.path())).unwrap();
    let before = std::fs::read(directory.path().join("pki/apiserver.crt")).unwrap();
    pki.renew().unwrap();
    assert_eq!(std::fs::read(directory.path().join("pki/apiserver.crt")).unwrap(), before);
    // What is gone is made anew, as what is about to expire is.
    std::fs::remove_file(directory.path().join("pki/apiserver.crt")).unwrap();
    let serving = pki.serving();
    let presented = serving.fingerprint();
    pki.renew().unwrap();
    assert_ne!(serving.fingerprint(), presented);
}
