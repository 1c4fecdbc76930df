//! The pod network on the real kernel, in network namespaces of the test's own (as root).

mod world;

use std::{collections::HashSet, fs, io::Read, net::Ipv4Addr, sync::Arc};

use kubelet_network::{Attachment, HostPort, NetworkConfig, NetworkError, Peer, PodNetwork, Protocol};

use self::world::{Listener, NODE, OUTSIDE, Place, VIRTUAL, config, connect, inventory, network, on_a_node};

fn tcp(host_ip: Ipv4Addr, host_port: u16, container_port: u16) -> HostPort {
    HostPort { host_ip, host_port, container_port, protocol: Protocol::Tcp }
}

async fn attach(network: &PodNetwork, uid: &str, ports: &[HostPort]) -> (Place, Ipv4Addr) {
    let pod = Place::new();
    let attachment = network.attach(uid, pod.pid, ports).await.expect("a pod must be attached");
    assert_eq!(network.address_of(uid), Some(attachment.address));
    (pod, attachment.address)
}

#[test]
fn pods_reach_each_other_the_node_and_the_world() {
    on_a_node(async |outside| {
        let network = network().await;
        let (one, one_address) = attach(&network, "one", &[]).await;
        let (two, two_address) = attach(&network, "two", &[]).await;
        assert_eq!(network.gateway(), Ipv4Addr::new(10, 244, 1, 1));

        let listener = two.listen(80);
        let seen = one.reach(two_address, 80, &listener).expect("pod to pod");
        assert_eq!(seen, one_address, "without translation");
        let here = connect(two_address, 80).expect("node to pod");
        assert_eq!(listener.meet(here), network.gateway());
        two.reach(Ipv4Addr::LOCALHOST, 80, &listener).expect("a pod's own loopback");

        let listener = Listener::here(8000);
        assert_eq!(one.reach(NODE, 8000, &listener).expect("pod to node"), one_address);
        let listener = outside.listen(80);
        assert_eq!(
            one.reach(OUTSIDE, 80, &listener).expect("pod to world"),
            NODE,
            "the world knows only the node"
        );
        assert_eq!(one.mtu("eth0"), 1400, "what the way to the world carries");
    });
}

#[test]
fn host_ports_lead_to_pods_from_everywhere() {
    on_a_node(async |outside| {
        let network = network().await;
        let any = Ipv4Addr::UNSPECIFIED;
        let ports = [tcp(any, 8080, 80), tcp(Ipv4Addr::LOCALHOST, 8081, 80)];
        let (web, _) = attach(&network, "web", &ports).await;
        let (other, _) = attach(&network, "other", &[]).await;
        let listener = web.listen(80);

        assert_eq!(
            outside.reach(NODE, 8080, &listener).expect("from the world"),
            OUTSIDE,
            "who asks is seen"
        );
        assert!(outside.reach(NODE, 8081, &listener).is_err(), "a port of 127.0.0.1 is not the world's");
        for (address, port) in [(NODE, 8080), (Ipv4Addr::LOCALHOST, 8080), (Ipv4Addr::LOCALHOST, 8081)] {
            listener.meet(connect(address, port).unwrap_or_else(|error| panic!("{address}:{port}: {error}")));
        }
        // With br_netfilter the bridge itself translates, without it the node does: both must work.
        let switch = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        for setting in ["1", "0"] {
            if fs::exists(switch).expect("/proc must be readable") {
                fs::write(switch, setting).expect("the test must run as root");
            }
            other.reach(NODE, 8080, &listener).expect("from a pod of the same node");
            web.reach(NODE, 8080, &listener).expect("from the pod itself");
        }

        let rival = Place::new();
        let refused = network.attach("rival", rival.pid, &[tcp(NODE, 8080, 80)]).await;
        assert!(
            matches!(&refused, Err(NetworkError::HostPortTaken { pod_uid, .. }) if pod_uid == "web"),
            "{refused:?}"
        );
        assert_eq!(network.address_of("rival"), None);

        network.detach("web").await.expect("detaching must succeed");
        assert!(connect(Ipv4Addr::LOCALHOST, 8080).is_err(), "the port is closed with the pod");
        network.attach("rival", rival.pid, &[tcp(NODE, 8080, 80)]).await.expect("the port is free again");
    });
}

#[test]
fn a_virtual_address_leads_to_the_api_server() {
    on_a_node(async |_outside| {
        let network = network().await;
        let (pod, address) = attach(&network, "pod", &[]).await;
        let listener = Listener::here(6443);
        for port in [443, 444] {
            assert_eq!(pod.reach(VIRTUAL, port, &listener).expect("from a pod"), address, "port {port}");
            listener.meet(connect(VIRTUAL, port).expect("from the node, for pods on its network"));
        }
    });
}

#[test]
fn a_restart_disturbs_nobody_and_cleans_up() {
    on_a_node(async |_outside| {
        let first = network().await;
        let (kept, kept_address) = attach(&first, "kept", &[tcp(Ipv4Addr::UNSPECIFIED, 8080, 80)]).await;
        let (_deleted, deleted_address) = attach(&first, "deleted", &[]).await;
        let listener = kept.listen(80);
        let open = connect(kept_address, 80).expect("a connection that stays");
        let mut accepted = listener.accept();
        drop(first);

        let second = network().await;
        let mut found = second.found().await.expect("links must be told");
        found.sort();
        assert_eq!(found, [("deleted".to_owned(), deleted_address), ("kept".to_owned(), kept_address)]);
        let attachment =
            |uid: &str, address, host_ports| Attachment { pod_uid: uid.to_owned(), address, host_ports };
        let running = [
            attachment("kept", kept_address, vec![tcp(Ipv4Addr::UNSPECIFIED, 8080, 80)]),
            attachment("dead", Ipv4Addr::new(10, 244, 1, 77), vec![]),
        ];
        assert_eq!(second.restore(&running).await.expect("restoring must succeed"), ["dead"]);
        assert_eq!(second.found().await.expect("links must be told"), [("kept".to_owned(), kept_address)]);
        assert_eq!(second.address_of("kept"), Some(kept_address));

        std::io::Write::write_all(&mut &open, b"still").expect("the connection must live");
        let mut word = [0; 5];
        accepted.read_exact(&mut word).expect("the connection must live");
        listener.meet(connect(Ipv4Addr::LOCALHOST, 8080).expect("the host port must work"));
        let (_new, new_address) = attach(&second, "new", &[]).await;
        assert_ne!(new_address, kept_address);
    });
}

/// The bridge's addresses.
fn gateways() -> Vec<String> {
    let shown =
        std::process::Command::new("ip").args(["-4", "-o", "address", "show", "dev", "mk8s0"]).output();
    let shown = String::from_utf8_lossy(&shown.expect("iproute2 must be installed").stdout).into_owned();
    shown.lines().filter_map(|line| line.split_whitespace().nth(3).map(str::to_owned)).collect()
}

#[test]
fn another_range_is_for_new_pods_and_the_former_lasts_as_long_as_its_pods() {
    on_a_node(async |outside| {
        let network = network().await;
        let (old, old_address) = attach(&network, "old", &[tcp(Ipv4Addr::UNSPECIFIED, 8080, 80)]).await;
        let range = "10.244.7.0/24".parse().expect("a range");
        for _ in 0..2 {
            network.set_range(range).await.expect("another range must be had");
        }
        let (new, new_address) = attach(&network, "new", &[]).await;
        assert_eq!((network.range(), new_address), (range, Ipv4Addr::new(10, 244, 7, 2)));
        let check = || {
            let (of_old, of_new) = (old.listen(80), new.listen(80));
            assert_eq!(old.reach(new_address, 80, &of_new).expect("old to new"), old_address);
            assert_eq!(new.reach(old_address, 80, &of_old).expect("new to old"), new_address);
            old.reach(NODE, 8080, &of_old).expect("its own host port");
            of_old.meet(connect(Ipv4Addr::LOCALHOST, 8080).expect("the host port"));
            let world = outside.listen(80);
            for pod in [&old, &new] {
                assert_eq!(pod.reach(OUTSIDE, 80, &world).expect("pod to world"), NODE);
            }
        };
        check();
        drop(network);

        // A kubelet that starts only knows the new one.
        let second = PodNetwork::new(NetworkConfig { pod_cidr: range, ..config() });
        let second = second.await.expect("the network must be set up");
        let attachment =
            |uid: &str, address, host_ports| Attachment { pod_uid: uid.to_owned(), address, host_ports };
        let running = [
            attachment("old", old_address, vec![tcp(Ipv4Addr::UNSPECIFIED, 8080, 80)]),
            attachment("new", new_address, vec![]),
        ];
        assert_eq!(second.restore(&running).await.expect("restoring must succeed"), Vec::<String>::new());
        check();
        assert_eq!(gateways().len(), 2);
        second.detach("old").await.expect("detaching must succeed");
        assert_eq!(gateways(), ["10.244.7.1/24"], "the former range goes with its last pod");
        assert!(!inventory().contains("10.244.1."), "and so do its rules: {}", inventory());
    });
}

#[test]
fn an_attached_pod_stays_and_a_new_sandbox_starts_anew() {
    on_a_node(async |_outside| {
        let network = network().await;
        let (pod, address) = attach(&network, "pod", &[]).await;
        let again = network.attach("pod", pod.pid, &[]).await.expect("attaching twice must succeed");
        assert_eq!(again.address, address);
        drop(pod);
        let (_pod, second) = attach(&network, "pod", &[]).await;
        assert_ne!(second, address, "an address is not used again at once");
        for _ in 0..2 {
            network.detach("pod").await.expect("detaching must succeed, twice");
        }
        assert_eq!(network.address_of("pod"), None);
        let gone = network.attach("gone", u32::MAX, &[]).await;
        assert!(matches!(gone, Err(NetworkError::Namespace { .. })), "{gone:?}");
        assert_eq!(network.address_of("gone"), None);
    });
}

/// What a command of iproute2 says of this node.
fn shown(command: &str) -> String {
    let mut words = command.split(' ');
    let program = words.next().expect("there must be a program");
    let output =
        std::process::Command::new(program).args(words).output().expect("iproute2 must be installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn ways_lead_to_other_nodes_and_are_given_back() {
    on_a_node(async |_outside| {
        let network = network().await;
        let before = (inventory(), shown("ip route"));
        let range = |text: &str| text.parse().expect("a range");
        let near = Peer { address: OUTSIDE, pod_cidr: range("10.244.2.0/24") };
        let far = Peer { address: Ipv4Addr::new(198, 51, 100, 7), pod_cidr: range("10.244.3.0/24") };
        for _ in 0..2 {
            network.set_peers(&[near.clone(), far.clone()]).await.expect("ways must be made, twice");
            let routes = shown("ip route show proto 107");
            assert!(routes.contains(&format!("10.244.2.0/24 via {OUTSIDE} dev")), "{routes}");
            assert!(routes.contains("10.244.3.0/24 via 10.244.3.0 dev mkx"), "{routes}");
            assert!(routes.contains("onlink"), "{routes}");
        }
        let tunnel = shown("ip -d link show type vxlan");
        assert!(tunnel.contains("0a:58:0a:f4:01:00") && tunnel.contains("dstport 8472"), "{tunnel}");
        assert!(tunnel.contains("mtu 1350"), "{tunnel}");
        let entries = shown("bridge fdb show");
        assert!(entries.contains("0a:58:0a:f4:03:00") && entries.contains("dst 198.51.100.7"), "{entries}");
        let neighbours = shown("ip neigh show nud permanent");
        assert!(
            neighbours.contains("10.244.3.0") && neighbours.contains("0a:58:0a:f4:03:00"),
            "{neighbours}"
        );

        // The distant one leaves, and its range goes to a neighbour.
        let heir = Peer { address: Ipv4Addr::new(192, 0, 2, 9), ..far };
        network.set_peers(&[heir]).await.expect("ways must change");
        let routes = shown("ip route show proto 107");
        assert!(routes.contains("10.244.3.0/24 via 192.0.2.9") && !routes.contains("10.244.2.0"), "{routes}");

        network.set_peers(&[]).await.expect("ways must go");
        assert_eq!((inventory(), shown("ip route")), before);
        network.set_peers(&[near]).await.expect("ways must be made");
        network.teardown().await.expect("everything must go");
        assert_eq!(shown("ip route show proto 107"), "");
        assert_eq!(shown("ip link show type vxlan"), "");
    });
}

#[test]
fn many_pods_attach_at_once() {
    on_a_node(async |_outside| {
        let network = Arc::new(network().await);
        let pods: Vec<Place> = (0..50).map(|_| Place::new()).collect();
        let attachments = pods.iter().enumerate().map(|(number, pod)| {
            let network = Arc::clone(&network);
            async move {
                network.attach(&format!("pod-{number}"), pod.pid, &[]).await.expect("it must attach").address
            }
        });
        let addresses = futures_util::future::join_all(attachments).await;
        assert_eq!(addresses.iter().collect::<HashSet<_>>().len(), 50);
        let listener = pods[49].listen(80);
        pods[0].reach(addresses[49], 80, &listener).expect("the first must reach the last");
    });
}

#[test]
fn teardown_leaves_nothing_and_rules_come_back() {
    on_a_node(async |_outside| {
        let before = inventory();
        let network = network().await;
        let (_pod, _) = attach(&network, "pod", &[tcp(Ipv4Addr::UNSPECIFIED, 8080, 80)]).await;
        let set_up = inventory();
        assert_ne!(set_up, before);
        for table in ["nat", "filter"] {
            let flushed = std::process::Command::new("iptables").args(["-t", table, "-F"]).status();
            assert!(flushed.expect("iptables must be installed").success());
        }
        assert_ne!(inventory(), set_up);
        network.reapply().await.expect("rules must be written again");
        assert_eq!(inventory(), set_up);
        let second = world::network().await;
        assert_eq!(
            inventory(),
            set_up.replace(&port_rule(&set_up), ""),
            "a second start changes nothing but ports"
        );
        drop(second);
        kubelet_network::remove_everything(&config().bridge, &config().chain_prefix, config().cluster_cidr)
            .await
            .expect("it must go");
        assert_eq!(inventory(), before);
        network.teardown().await.expect("tearing down what is gone must succeed");
        assert_eq!(inventory(), before);
    });
}

/// The one host port's rule in an inventory, with its separator.
fn port_rule(inventory: &str) -> String {
    let begin = inventory.find("\"-A MINIK8S-PORTS").expect("there must be a host port");
    let end = begin + inventory[begin..].find("\", ").expect("rules must follow") + "\", ".len();
    inventory[begin..end].to_owned()
}
