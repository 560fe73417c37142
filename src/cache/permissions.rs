//! Checks who may write in the cache. If another user can replace files, no image, lock or log there can be
//! trusted. The rule is that of sshd's StrictModes, with two exceptions. A group without other members may
//! write, since Debian and Fedora give each user such a group and a umask of 002. In a sticky directory
//! (`chmod 1777`), nobody can replace the files of others.

use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::read::{Links, read_text};
use camino::Utf8Path;
use std::os::unix::fs::MetadataExt;

/// The limit of `/etc/passwd` and `/etc/group`.
const MAX_USERS: u64 = 4 << 20;

/// Checks that only `uid` may replace files in a directory of the cache.
///
/// # Errors
///
/// Exit code 2: other users may.
pub fn check(dir: &Utf8Path, uid: u32) -> Result<()> {
    let metadata = dir.metadata().context(Kind::Usage, || format!("cannot read {dir}"))?;
    let mode = metadata.mode();
    if mode & 0o1000 != 0 {
        return Ok(());
    }
    let who = if mode & 0o002 != 0 {
        "everybody".to_owned()
    } else if mode & 0o020 != 0 && !is_private(metadata.gid(), uid) {
        format!("the group {}", metadata.gid())
    } else {
        return Ok(());
    };
    Err(Error::usage(format!(
        "the cache directory {dir} is not safe: {who} can replace files in it (mode {:o})",
        mode & 0o7777
    ))
    .hint(format!("make it private with `chmod go-w {dir}`, or share it with `chmod 1777 {dir}`")))
}

fn is_private(gid: u32, uid: u32) -> bool {
    let read = |path: &str| read_text(path, Links::Follow, MAX_USERS).unwrap_or_default();
    has_single_member(gid, uid, &read("/etc/passwd"), &read("/etc/group"))
}

/// Returns whether the group has no members but `uid` and root. Root's group counts as root.
fn has_single_member(gid: u32, uid: u32, passwd: &str, groups: &str) -> bool {
    // name:password:uid:gid:…
    let users = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?.parse::<u32>().ok()?);
        Some((name, id, fields.next()?.parse::<u32>().ok()?))
    });
    // name:password:gid:members
    let group = groups.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        (fields.next()?.parse() == Ok(gid)).then(|| fields.next().unwrap_or_default())
    });
    // A directory service may know more members of a group that the file lacks, except of a user's own group.
    if gid == 0 || (group.is_none() && gid != uid) {
        return gid == 0;
    }
    let is_ours = |id: u32| id == uid || id == 0;
    let by_name = group.unwrap_or_default().split(',').filter(|name| !name.is_empty());
    users.clone().filter(|(.., primary)| *primary == gid).all(|(_, id, _)| is_ours(id))
        && by_name.into_iter().all(|name| users.clone().any(|(user, id, _)| user == name && is_ours(id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_group_is_private_if_nobody_else_is_in_it() {
        let passwd = "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\nyou:x:1001:1001::/:/bin/sh\n\
                      guest:x:1002:100::/:/bin/sh\n";
        let groups = "root:x:0:\nusers:x:100:\nme:x:1000:\nyou:x:1001:me\ndev:x:2000:me,you\nops:x:2001:root,me\n\
                      far:x:2002:me,ldap\n";
        for (gid, private) in [
            (1000, true),
            (1001, false),
            (100, false),
            (2000, false),
            (2001, true),
            (2002, false),
            (3000, false),
            (0, true),
        ] {
            assert_eq!(has_single_member(gid, 1000, passwd, groups), private, "{gid}");
        }
        // A directory service has this user, and a group with the same number.
        assert!(has_single_member(5000, 5000, passwd, groups));
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused_unless_it_is_sticky() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        for (mode, allowed) in [(0o700, true), (0o755, true), (0o777, false), (0o757, false), (0o1777, true)]
        {
            fs::set_permissions(dir, Permissions::from_mode(mode)).unwrap();
            assert_eq!(check(dir, rustix::process::geteuid().as_raw()).is_ok(), allowed, "{mode:o}");
        }
    }
}
