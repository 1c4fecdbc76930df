//! Who a container's first process is: its user, its group and all its groups, out of the pod's security contexts and
//! the accounts that its image knows.
//!
//! A user is read as runc reads it (`GetExecUser` of `github.com/moby/sys/user`), the policy is that of KEP-3619:
//! `Merge` adds the groups which the image has the user in, whatever its first group is (as containerd does, where
//! Docker leaves them out once a group is named); `Strict` adds none.

use k8s_openapi::api::core::v1::{ContainerUser, LinuxContainerUser, Pod};
use kubelet_runtime::{AccountFiles, ContainerSecurity};

use super::spec;

/// Note of a container: who its first process is, as `uid:gid:group,group…`.
pub const USER_ANNOTATION: &str = "io.minik8s.container.user";

/// A user as a process has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    uid: i64,
    gid: i64,
    /// The first group among them, in the order in which they were found.
    groups: Vec<i64>,
}

/// Whether the groups that the image has the user in must stay away.
#[must_use]
pub fn is_strict(pod: &Pod) -> bool {
    let context = spec(pod).security_context.as_ref();
    context.and_then(|context| context.supplemental_groups_policy.as_deref()) == Some("Strict")
}

/// Who a container will be, and what the runtime is to be told so that it is. `None`, and nothing changed, for a user
/// or group that the image does not know by that name: that container cannot start, and the runtime says why.
pub fn settle(
    pod: &Pod,
    security: &mut ContainerSecurity,
    image_user: &str,
    files: &AccountFiles,
) -> Option<Account> {
    let asked = security.user.clone().unwrap_or_else(|| image_user.to_owned());
    let (user, group) = asked.split_once(':').unwrap_or((&asked, ""));
    let found = passwd(&files.passwd).find(|line| match user.parse::<i64>() {
        Ok(uid) => line.uid == uid,
        Err(_) if user.is_empty() => line.uid == 0,
        Err(_) => line.name == user,
    });
    let uid = match (&found, user) {
        (Some(line), _) => line.uid,
        (None, "") => 0,
        (None, number) => number.parse().ok()?,
    };
    let gid = match group {
        "" => found.as_ref().map_or(0, |line| line.gid),
        group => match groups(&files.group).find(|line| line.is_called(group)) {
            Some(line) => line.gid,
            None => group.parse().ok()?,
        },
    };
    let strict = is_strict(pod);
    let of_image: Vec<i64> = match &found {
        Some(user) if !strict => {
            groups(&files.group).filter(|line| line.has(user.name)).map(|line| line.gid).collect()
        }
        _ => Vec::new(),
    };
    if strict {
        // With a group by its number Docker looks for no others.
        security.user = Some(format!("{uid}:{gid}"));
    } else if !group.is_empty() {
        for gid in &of_image {
            let gid = gid.to_string();
            if !security.groups.contains(&gid) {
                security.groups.push(gid);
            }
        }
    }
    let given = security.groups.iter().filter_map(|group| group.parse().ok());
    let mut all = Vec::new();
    for group in [gid].into_iter().chain(of_image).chain(given) {
        if !all.contains(&group) {
            all.push(group);
        }
    }
    Some(Account { uid, gid, groups: all })
}

impl Account {
    /// As a note.
    #[must_use]
    pub fn note(&self) -> String {
        let groups: Vec<String> = self.groups.iter().map(ToString::to_string).collect();
        format!("{}:{}:{}", self.uid, self.gid, groups.join(","))
    }
}

/// What a note says, for `containerStatuses[].user`.
#[must_use]
pub fn read(note: &str) -> Option<ContainerUser> {
    let mut parts = note.splitn(3, ':');
    let mut number = || parts.next()?.parse::<i64>().ok();
    let (uid, gid) = (number()?, number()?);
    let groups: Vec<i64> = parts.next()?.split(',').map(|group| group.parse().ok()).collect::<Option<_>>()?;
    Some(ContainerUser { linux: Some(LinuxContainerUser { uid, gid, supplemental_groups: Some(groups) }) })
}

/// The user of a run, if it was noted.
#[must_use]
pub fn of_run(run: &kubelet_runtime::ContainerView) -> Option<ContainerUser> {
    run.annotations.get(USER_ANNOTATION).and_then(|note| read(note))
}

/// A line of `/etc/passwd`.
struct User<'a> {
    name: &'a str,
    uid: i64,
    gid: i64,
}

fn passwd(text: &str) -> impl Iterator<Item = User<'_>> {
    lines(text).map(|mut fields| {
        let name = fields.next().unwrap_or_default();
        let uid = number(fields.nth(1));
        User { name, uid, gid: number(fields.next()) }
    })
}

/// Lines that say something, in their fields.
fn lines(text: &str) -> impl Iterator<Item = std::str::Split<'_, char>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split(':'))
}

/// What is no number, or not there, is a zero to runc (`parseLine`).
fn number(field: Option<&str>) -> i64 {
    field.and_then(|field| field.parse().ok()).unwrap_or_default()
}

/// A line of `/etc/group`.
struct Group<'a> {
    name: &'a str,
    gid: i64,
    members: &'a str,
}

impl Group<'_> {
    fn is_called(&self, name_or_number: &str) -> bool {
        match name_or_number.parse::<i64>() {
            Ok(gid) => self.gid == gid,
            Err(_) => self.name == name_or_number,
        }
    }

    fn has(&self, user: &str) -> bool {
        self.members.split(',').any(|member| member == user)
    }
}

fn groups(text: &str) -> impl Iterator<Item = Group<'_>> {
    lines(text).map(|mut fields| {
        let name = fields.next().unwrap_or_default();
        let gid = number(fields.nth(1));
        Group { name, gid, members: fields.next().unwrap_or_default() }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::{security::effective, testing::pod};

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n# a comment\napp:x:1000:1001::/home:/bin/sh\nlost:x:no:1\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,app\napps:x:1001:\nextra:x:50000:app\n";

    /// What Docker is told (user and groups), and who the process is.
    fn of(context: &Value, image_user: &str) -> (Option<String>, Vec<String>, Option<String>) {
        let pod = pod(json!({"securityContext": context, "containers": [{"name": "a"}]}));
        let mut security = effective(&pod, &spec(&pod).containers[0], image_user);
        let files = AccountFiles { passwd: PASSWD.into(), group: GROUP.into() };
        let account = settle(&pod, &mut security, image_user, &files);
        (security.user, security.groups, account.map(|account| account.note()))
    }

    #[test]
    fn users_are_read_as_the_runtime_reads_them() {
        for (image_user, note) in [
            ("", "0:0:0,10"),
            ("0", "0:0:0,10"),
            ("app", "1000:1001:1001,10,50000"),
            ("1000", "1000:1001:1001,10,50000"),
            ("app:wheel", "1000:10:10,50000"),
            ("lost", "0:1:1"),
            ("7", "7:0:0"),
            ("7:8", "7:8:8"),
            ("1000:50000", "1000:50000:50000,10"),
        ] {
            assert_eq!(of(&json!({}), image_user).2.as_deref(), Some(note), "{image_user}");
        }
        assert_eq!(of(&json!({}), "nobody").2, None);
        assert_eq!(of(&json!({}), "app:nobody").2, None);
    }

    /// KEP-3619, and the cases of upstream's `SupplementalGroupsPolicy` tests.
    #[test]
    fn the_image_s_groups_are_merged_or_kept_away() {
        let merged = of(&json!({"runAsUser": 1000, "supplementalGroups": [60000]}), "");
        assert_eq!(
            merged,
            (Some("1000".into()), vec!["60000".into()], Some("1000:1001:1001,10,50000,60000".into()))
        );
        let named = of(&json!({"runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 4000}), "");
        assert_eq!(named.1, ["4000", "10", "50000"], "Docker does not look for them where a group is named");
        assert_eq!(named.2.as_deref(), Some("1000:3000:3000,10,50000,4000"));
        let strict =
            json!({"runAsUser": 1000, "supplementalGroups": [60000], "supplementalGroupsPolicy": "Strict"});
        let expected = (Some("1000:1001".into()), vec!["60000".into()], Some("1000:1001:1001,60000".into()));
        assert_eq!(of(&strict, ""), expected);
        assert_eq!(of(&json!({"supplementalGroupsPolicy": "Strict"}), "app").0.as_deref(), Some("1000:1001"));
    }

    #[test]
    fn a_note_is_read_back() {
        let note = of(&json!({"fsGroup": 5}), "app").2.unwrap();
        let user = serde_json::to_value(read(&note).unwrap()).unwrap();
        assert_eq!(
            user,
            json!({"linux": {"uid": 1000, "gid": 1001, "supplementalGroups": [1001, 10, 50000, 5]}})
        );
        for wrong in ["", "1", "1:2", "1:2:x", "a:2:3"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
