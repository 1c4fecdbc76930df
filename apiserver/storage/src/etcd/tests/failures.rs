//! What a store on etcd makes of restarts, of members that die, and of a line that is cut.

use etcd_client::{AlarmAction, AlarmOptions, AlarmType, CompactionOptions};

use super::{server::Line, *};
use crate::store::Got;

/// Updates an entry whatever happens to the connection meanwhile; answers the revision of the write.
pub(super) async fn update_through(
    store: &impl Store,
    name: &str,
    text: &str,
    expected: Revision,
) -> Revision {
    loop {
        match within(store.update(&testing::key(name), testing::value(text), expected, None)).await {
            Ok(revision) => return revision,
            // The outcome is unknown: trying again tells.
            Err(StoreError::Unavailable(_)) => tokio::task::yield_now().await,
            Err(StoreError::Conflict { current: Some(current), .. }) => {
                assert_eq!(current.value, text, "a write of nobody");
                return current.revision;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn a_watch_outlives_a_restart_of_etcd() {
    let mut fixture = fixture().await;
    let first = create(&*fixture, "a", "1").await;
    let mut watching = testing::watch(&*fixture, first).await;
    let second = update(&*fixture, "a", "2", first).await;
    assert_eq!(testing::events(&mut watching, 1).await[0].0, second);
    fixture.server.restart().await;
    let third = update_through(&*fixture, "a", "3", second).await;
    assert_eq!(testing::events(&mut watching, 1).await[0].0, third);
}

#[tokio::test]
async fn a_member_that_dies_is_not_missed() {
    let mut server = EtcdServer::start_members(3).await;
    let store = EtcdStore::connect(server.options()).await.unwrap();
    let mut revision = create(&store, "a", "0").await;
    let mut watching = testing::watch(&store, revision).await;
    // One after the other; whoever leads the others dies among them.
    for member in 0..3 {
        server.kill_member(member);
        revision = update_through(&store, "a", &member.to_string(), revision).await;
        assert_eq!(testing::events(&mut watching, 1).await[0].0, revision);
        for round in 0..40 {
            let read = within(store.get(&testing::key("a"), At::Latest)).await;
            let read = read.map(|Got { entry, .. }| entry.map(|entry| entry.revision));
            assert_eq!(read.ok(), Some(Some(revision)), "read {round} without member {member}");
        }
        server.start_member(member);
        server.answers_again().await;
    }
}

#[tokio::test]
async fn a_cache_cut_off_while_history_is_compacted_begins_anew() {
    let fixture = fixture().await;
    let line = Line::to(fixture.server.url()).await;
    let options = EtcdOptions {
        endpoints: vec![line.url().to_owned()],
        prefix: "/cluster-a".to_owned(),
        request_timeout: Duration::from_secs(1),
        ..fixture.server.options()
    };
    let far = EtcdStore::connect(options).await.unwrap();
    let options = CacherOptions { progress_interval: Duration::from_millis(50), ..CacherOptions::default() };
    let cache = Cacher::start(Arc::new(Backend::Etcd(Box::new(far))), Nothing, options).await.unwrap();
    let first = create(&*cache, "a", "1").await;
    let mut watching = testing::watch(&*cache, first).await;
    line.cut();
    // Another server goes on meanwhile, and nothing is kept of how it came to what there is.
    let second = update(&*fixture, "a", "2", first).await;
    testing::delete(&*fixture, "a", second).await;
    let last = create(&*fixture, "b", "1").await;
    fixture.compact(last).await.unwrap();
    line.mend();
    let ended = within(watching.next()).await.unwrap();
    assert!(matches!(ended, Err(StoreError::Compacted { .. })), "a gap would be a lie: {ended:?}");
    let listing = loop {
        match within(Store::list(&*cache, testing::PREFIX, &ListOptions::default())).await {
            Ok(listing) => break listing,
            Err(StoreError::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error:?}"),
        }
    };
    let names: Vec<_> = listing.entries.iter().map(|entry| &*entry.key).collect();
    assert_eq!(names, [testing::key("b")]);
    // And it follows again.
    let mut watching = testing::watch(&*cache, last).await;
    let next = update_through(&*cache, "b", "2", last).await;
    assert_eq!(testing::events(&mut watching, 1).await[0].0, next);
}

#[tokio::test]
async fn a_full_etcd_refuses_writes_until_there_is_room() {
    let quota = ["--quota-backend-bytes".to_owned(), (8 << 20).to_string()];
    let server = EtcdServer::start_with(1, &quota, EtcdOptions::new(vec!["http://".to_owned()])).await;
    let store = EtcdStore::connect(server.options()).await.unwrap();
    let value = bytes::Bytes::from(vec![b'x'; 500_000]);
    let mut written = Vec::new();
    let refused = loop {
        let key = testing::key(&format!("n{}", written.len()));
        match within(store.create(&key, value.clone(), None)).await {
            Ok(revision) => written.push((key, revision)),
            // The one that fills it up: etcd says no, and carries it out.
            Err(StoreError::Unavailable(_)) => {
                let entry = within(store.get(&key, At::Latest)).await.unwrap().entry;
                written.extend(entry.map(|entry| (key, entry.revision)));
            }
            Err(error) => break error,
        }
        assert!(written.len() < 100, "the quota is not kept");
    };
    assert!(matches!(refused, StoreError::NoSpace), "{refused:?}");
    assert!(refused.is_definite());
    let listing = within(store.list(testing::PREFIX, &ListOptions::default())).await.unwrap();
    assert_eq!(listing.entries.len(), written.len(), "reads go on, and the refused write did not happen");
    // Room is made as for any etcd: what is not needed goes, and so does what it leaves in the file.
    for (key, revision) in written {
        within(store.delete(&key, revision)).await.unwrap();
    }
    let client = Client::connect([server.url()], None).await.unwrap();
    let current = i64::try_from(within(store.current_revision()).await.unwrap()).unwrap();
    let physical = CompactionOptions::new().with_physical();
    client.kv_client().compact(current, Some(physical)).await.unwrap();
    let mut maintenance = client.maintenance_client();
    maintenance.defragment().await.unwrap();
    let member = maintenance.status().await.unwrap().header().unwrap().member_id();
    let mut of_member = AlarmOptions::new();
    of_member.with_member(member);
    maintenance.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(of_member)).await.unwrap();
    create(&store, "again", "1").await;
}
