//! Who runs Postgres when we are root: it refuses to run as root, and rightly so.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use super::DevError;

/// A line of the user database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Numeric user id.
    pub uid: u32,
    /// Numeric id of its group.
    pub gid: u32,
}

/// The user for Postgres: `None` when we are not root and it simply runs as us.
///
/// # Errors
/// When we are root and the machine has neither `postgres` nor `nobody`.
pub fn for_postgres() -> Result<Option<User>, DevError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    ["postgres", "nobody"].iter().find_map(|name| find(&passwd, name)).map(Some).ok_or_else(|| DevError::Missing {
        what: "a user that Postgres can run as (it refuses to run as root)".to_owned(),
        mend: "add the user `postgres`, or start this as an ordinary user".to_owned(),
    })
}

fn find(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [login, _, uid, gid, ..] = fields[..] else { return None };
        let user = User { name: login.to_owned(), uid: uid.parse().ok()?, gid: gid.parse().ok()? };
        (login == name && user.uid != 0).then_some(user)
    })
}

/// Makes a folder (its parents must exist) that belongs to `owner` alone.
///
/// # Errors
/// When it exists already or cannot be made.
pub fn make_private_folder(path: &Path, owner: Option<&User>) -> Result<(), DevError> {
    std::fs::create_dir(path).map_err(DevError::file("create", path))?;
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(path, private).map_err(DevError::file("set the mode of", path))?;
    match owner {
        Some(user) => chown(path, Some(user.uid), Some(user.gid)).map_err(DevError::file("give away", path)),
        None => Ok(()),
    }
}

/// The first folder above `path` (itself included) that `user` may not pass through: others need its `x` bit, unless it is the
/// user's own.
#[must_use]
pub fn first_obstacle(path: &Path, user: &User) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    path.ancestors()
        .filter(|folder| {
            std::fs::metadata(folder).is_ok_and(|meta| {
                let own = meta.uid() == user.uid && meta.mode() & 0o100 != 0;
                !own && meta.mode() & 0o001 == 0
            })
        })
        .last()
        .map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_database_is_read_by_exact_name_and_never_yields_root() {
        let passwd = "root:x:0:0::/:/bin/sh\nxpostgres:x:7:7::/:\npostgres:x:101:104:PG:/var/lib:/bin/bash\nnobody:x:65534:65534::/:\n";
        let expected = User { name: "postgres".to_owned(), uid: 101, gid: 104 };
        assert_eq!(find(passwd, "postgres"), Some(expected));
        assert_eq!(find(passwd, "root"), None);
        assert_eq!(find(passwd, "gres"), None);
        assert_eq!(find("postgres:x", "postgres"), None);
    }

    #[test]
    fn a_closed_folder_is_an_obstacle_for_others_and_not_for_its_owner() {
        use std::os::unix::fs::MetadataExt as _;
        let outer = tempfile::tempdir().unwrap();
        std::fs::set_permissions(outer.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let inner = outer.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let owner = std::fs::metadata(outer.path()).unwrap();
        let stranger = User { name: "stranger".to_owned(), uid: owner.uid() + 4_000, gid: 4_000 };
        assert_eq!(first_obstacle(&inner, &stranger).as_deref(), Some(outer.path()));
        let owner = User { name: "owner".to_owned(), uid: owner.uid(), gid: owner.gid() };
        assert_eq!(first_obstacle(&inner, &owner), None);
    }
}
