//! Who may give which role to whom. Pure.

use crate::access::Role;
use crate::ids::UserId;

/// A human, as the rules see one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Who.
    pub id: UserId,
    /// The role now.
    pub role: Role,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not somebody who manages members (403).
    #[error("Insufficient permissions: only an owner or admin of the organisation may do this")]
    NotManager,
    /// Only owners touch owners (403).
    #[error("Insufficient permissions: only an owner may make, change or remove an owner")]
    NotOwner,
    /// Nobody gives themself more (403).
    #[error("Insufficient permissions: nobody raises their own role")]
    OwnRole,
    /// There would be none left (409).
    #[error("this is the organisation's last owner: make somebody else an owner first")]
    LastOwner,
}

/// What is to become of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Another role, or the same.
    Role(Role),
    /// Out.
    Remove,
}

/// Whether `by` may do that to `target`. `owners` is how many owners there are now.
///
/// # Errors
/// [`Refusal`].
pub fn check(by: Standing, target: Standing, change: Change, owners: usize) -> Result<(), Refusal> {
    let own = by.id == target.id;
    // Whoever leaves, or takes less, needs no rights over others.
    let less = match change {
        Change::Role(role) => role <= target.role,
        Change::Remove => true,
    };
    if own && !less {
        return Err(Refusal::OwnRole);
    }
    if !own {
        let to_owner = change == Change::Role(Role::Owner);
        may_manage(by.role, if to_owner { Role::Owner } else { target.role })?;
    }
    if target.role == Role::Owner && change != Change::Role(Role::Owner) && owners <= 1 {
        return Err(Refusal::LastOwner);
    }
    Ok(())
}

/// Whether somebody with the role `by` may give, change or end the role `role` of others.
///
/// # Errors
/// [`Refusal::NotManager`], [`Refusal::NotOwner`].
pub fn may_manage(by: Role, role: Role) -> Result<(), Refusal> {
    match (by, role) {
        (Role::Member, _) => Err(Refusal::NotManager),
        (Role::Admin, Role::Owner) => Err(Refusal::NotOwner),
        (Role::Admin | Role::Owner, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Change::{Remove, Role as To};
    use Role::{Admin, Member, Owner};

    #[test]
    fn every_change_by_everybody() {
        let (me, other) = (UserId::random(), UserId::random());
        for by in [Member, Admin, Owner] {
            for target in [Member, Admin, Owner] {
                for change in [To(Member), To(Admin), To(Owner), Remove] {
                    let by = Standing { id: me, role: by };
                    let of_other = check(by, Standing { id: other, role: target }, change, 2);
                    let touches_owner = target == Owner || change == To(Owner);
                    let expected = match by.role {
                        Member => Err(Refusal::NotManager),
                        Admin if touches_owner => Err(Refusal::NotOwner),
                        _ => Ok(()),
                    };
                    assert_eq!(of_other, expected, "{by:?} {target:?} {change:?}");
                }
            }
            for change in [To(Member), To(Admin), To(Owner), Remove] {
                let me = Standing { id: me, role: by };
                let raises = matches!(change, To(role) if role > by);
                let expected = if raises { Err(Refusal::OwnRole) } else { Ok(()) };
                assert_eq!(check(me, me, change, 2), expected, "{by:?} to themself {change:?}");
                let alone = check(me, me, change, 1);
                let leaves = by == Owner && change != To(Owner);
                assert_eq!(alone, if leaves { Err(Refusal::LastOwner) } else { expected }, "{by:?} alone {change:?}");
            }
        }
    }
}
