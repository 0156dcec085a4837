//! Groups from outside. Queue groups are not shown: nothing that Kafka's tools could do with them is right.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
    ListGroupsRequest, ListGroupsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::groups::{group_name, text};
use super::once::once;
use super::session::Session;
use super::{errors, rights};
use crate::base::GroupName;
use crate::broker::GroupProtocol;
use crate::catalog::GroupKind;

/// The kind of group that consumers make.
pub const CONSUMER: &str = "consumer";

/// What a group is: its state, and what its members take it for.
fn facts(session: &Session, name: &GroupName) -> (&'static str, String) {
    match (session.broker().classic_look(name), session.broker().group_protocol(name)) {
        (Some(look), _) => (look.state, look.protocol_type),
        (None, Some(GroupProtocol::Stream)) => {
            let settled = session.broker().consumer_look(name).is_none_or(|look| look.settled);
            (if settled { "Stable" } else { "Reconciling" }, CONSUMER.to_owned())
        }
        _ => ("Empty", CONSUMER.to_owned()),
    }
}

/// Answers ListGroups.
pub async fn list(session: Arc<Session>, version: i16, request: ListGroupsRequest) -> ListGroupsResponse {
    let has = |filter: &[StrBytes], word: &str| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(word))
    };
    let broker = session.broker().clone();
    let entries = tokio::task::spawn_blocking(move || broker.list_groups()).await.unwrap_or_default();
    let mut groups = Vec::new();
    for entry in entries.into_iter().filter(|entry| entry.kind == GroupKind::Stream) {
        let (state, protocol_type) = facts(&session, &entry.name);
        let native = session.broker().group_protocol(&entry.name) == Some(GroupProtocol::Stream);
        let kind = if native { "consumer" } else { "classic" };
        if !has(&request.states_filter, state) || !has(&request.types_filter, kind) {
            continue;
        }
        let group = ListedGroup::default()
            .with_group_id(GroupId(text(entry.name.as_str())))
            .with_protocol_type(text(protocol_type));
        let group = if version >= 4 { group.with_group_state(text(state)) } else { group };
        groups.push(if version >= 5 { group.with_group_type(text(kind)) } else { group });
    }
    ListGroupsResponse::default().with_groups(groups)
}

/// Answers DescribeGroups. A group that does not exist is dead, which (before version 6) is no error.
pub async fn describe(
    session: Arc<Session>,
    version: i16,
    mut request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    once(&mut request.groups, |id| id.clone());
    let mut groups = Vec::with_capacity(request.groups.len());
    for id in request.groups {
        let group = DescribedGroup::default().with_group_id(id.clone());
        let mut group = match group_name(&id) {
            Ok(name) => describe_one(&session, version, group, &name).await,
            Err(code) => group.with_error_code(code),
        };
        if group.error_code == errors::NONE {
            group.authorized_operations = rights::told(request.include_authorized_operations, rights::GROUP);
        }
        groups.push(group);
    }
    DescribeGroupsResponse::default().with_groups(groups)
}

async fn describe_one(session: &Session, version: i16, group: DescribedGroup, name: &GroupName) -> DescribedGroup {
    if let Some(look) = session.broker().classic_look(name) {
        let members = look.members.into_iter().map(|member| {
            DescribedGroupMember::default()
                .with_member_id(text(member.id))
                .with_group_instance_id(member.instance.filter(|_| version >= 4).map(text))
                .with_client_id(text(member.client))
                .with_client_host(text(member.host))
                .with_member_metadata(member.said)
                .with_member_assignment(member.assignment)
        });
        return group
            .with_group_state(text(look.state))
            .with_protocol_type(text(look.protocol_type))
            .with_protocol_data(text(look.protocol))
            .with_members(members.collect());
    }
    match session.broker().describe_group(name).await {
        Ok(found) if found.entry.kind == GroupKind::Stream => {
            let (state, protocol_type) = facts(session, name);
            // Members of the native protocol assign nothing among themselves.
            let members = found.members.into_iter().map(|member| {
                DescribedGroupMember::default()
                    .with_member_id(text(member.id))
                    .with_client_id(text(member.client))
                    .with_member_metadata(Bytes::new())
                    .with_member_assignment(Bytes::new())
            });
            group.with_group_state(text(state)).with_protocol_type(text(protocol_type)).with_members(members.collect())
        }
        _ => {
            let dead = group.with_group_state(text("Dead"));
            if version < 6 {
                return dead;
            }
            let what = format!("there is no group '{name}'");
            dead.with_error_code(errors::GROUP_ID_NOT_FOUND).with_error_message(Some(text(what)))
        }
    }
}

/// Answers DeleteGroups.
pub async fn delete(session: Arc<Session>, _version: i16, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for id in request.groups_names {
        let code = match group_name(&id) {
            Ok(name) => {
                let deleted = session.broker().delete_group(&name, false).await;
                deleted.map_or_else(|error| errors::whole_group_code(&error), |()| errors::NONE)
            }
            Err(code) => code,
        };
        results.push(DeletableGroupResult::default().with_group_id(id).with_error_code(code));
    }
    DeleteGroupsResponse::default().with_results(results)
}
