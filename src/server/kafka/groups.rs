//! Classic groups: joining, sharing out, staying, leaving.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    FindCoordinatorRequest, FindCoordinatorResponse, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::errors;
use super::session::Session;
use crate::base::GroupName;
use crate::broker::{ClassicJoin, ClassicJoined, ClassicRefusal, ClassicVoice, Client};

/// The longest round, in milliseconds.
const LONGEST_ROUND_MS: u64 = 24 * 3_600_000;
/// What coordinates a group, among the kinds of coordinators.
const GROUP: i8 = 0;
/// What coordinates the transactions of an id.
const TRANSACTION: i8 = 1;
/// What Kafka says in place of an error's message where there is no error, up to version 3 of FindCoordinator.
const NO_ERROR: &str = "NONE";
const NO_SUCH_KIND: &str = "coordinators are those of groups (0) and of transactional ids (1)";

/// Text for the wire.
pub fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

/// A group by its name.
///
/// # Errors
/// The code for a name that no group can have.
pub fn group_name(name: &str) -> Result<GroupName, i16> {
    GroupName::new(name).ok().filter(|name| !name.is_internal()).ok_or(errors::INVALID_GROUP_ID)
}

/// Answers FindCoordinator: it is this server, of every group and transactional id.
pub async fn find_coordinator(
    session: Arc<Session>,
    version: i16,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let known = version == 0 || [GROUP, TRANSACTION].contains(&request.key_type);
    let (host, port) = session.advertised();
    let node = session.node();
    if version < 4 {
        let said = |message: &'static str| FindCoordinatorResponse::default().with_error_message(Some(text(message)));
        if !known {
            return said(NO_SUCH_KIND).with_error_code(errors::INVALID_REQUEST).with_node_id((-1).into()).with_port(-1);
        }
        return said(NO_ERROR).with_node_id(node.into()).with_host(text(host)).with_port(port.into());
    }
    let one = |key: StrBytes| {
        let one = Coordinator::default().with_key(key);
        if known {
            one.with_node_id(node.into()).with_host(text(host.clone())).with_port(port.into())
        } else {
            one.with_error_code(errors::INVALID_REQUEST)
                .with_error_message(Some(text(NO_SUCH_KIND)))
                .with_node_id((-1).into())
                .with_port(-1)
        }
    };
    FindCoordinatorResponse::default().with_coordinators(request.coordinator_keys.into_iter().map(one).collect())
}

/// Answers JoinGroup, at the end of the round.
pub async fn join(session: Arc<Session>, version: i16, request: JoinGroupRequest, client: String) -> JoinGroupResponse {
    let refuse = |code: i16, member: String| {
        // A protocol without a name, in versions in which it must have one.
        let none = (version < 7).then(StrBytes::default);
        JoinGroupResponse::default()
            .with_error_code(code)
            .with_generation_id(-1)
            .with_protocol_name(none)
            .with_member_id(text(member))
    };
    let member = request.member_id.to_string();
    let name = match group_name(&request.group_id) {
        Ok(name) => name,
        Err(code) => return refuse(code, member),
    };
    let config = &session.shared.config;
    let session_ms = u64::try_from(request.session_timeout_ms).ok();
    let bounds = config.kafka_min_session.0..=config.kafka_max_session.0;
    let Some(session_ms) = session_ms.filter(|time| bounds.contains(time)) else {
        return refuse(errors::INVALID_SESSION_TIMEOUT, member);
    };
    if request.protocols.is_empty() || request.protocol_type.is_empty() {
        return refuse(errors::INCONSISTENT_GROUP_PROTOCOL, member);
    }
    // The first version, and clients that do not say, mean the time of the session.
    let rebalance_ms = u64::try_from(request.rebalance_timeout_ms).ok().filter(|time| version >= 1 && *time > 0);
    let join = ClassicJoin {
        member: member.clone(),
        instance: request.group_instance_id.as_ref().map(ToString::to_string),
        client,
        host: format!("/{}", session.peer.ip().to_canonical()),
        from: Client::current(),
        session_ms,
        rebalance_ms: rebalance_ms.unwrap_or(session_ms).min(LONGEST_ROUND_MS),
        protocol_type: request.protocol_type.to_string(),
        // Copied, or each of them would keep its whole request in memory.
        protocols: request
            .protocols
            .iter()
            .map(|protocol| (protocol.name.to_string(), Bytes::copy_from_slice(&protocol.metadata)))
            .collect(),
        takes_id_first: version >= 4,
        may_skip: version >= 9,
    };
    drop(request);
    let outcome = tokio::select! {
        outcome = session.broker().join_classic(&name, join) => outcome,
        () = session.closing() => return refuse(errors::REBALANCE_IN_PROGRESS, member),
    };
    match outcome {
        Ok(joined) => joined_answer(version, joined),
        Err(ClassicRefusal::Group(error, id)) => refuse(errors::group_code(error), id),
        Err(ClassicRefusal::Broker(error)) => refuse(errors::whole_group_code(&error), member),
    }
}

fn joined_answer(version: i16, joined: ClassicJoined) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|(id, instance, said)| {
        JoinGroupResponseMember::default()
            .with_member_id(text(id))
            .with_group_instance_id(instance.filter(|_| version >= 5).map(text))
            .with_metadata(said)
    });
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type((version >= 7).then(|| text(joined.protocol_type)))
        .with_protocol_name(Some(text(joined.protocol)))
        .with_leader(text(joined.leader))
        .with_skip_assignment(joined.skip && version >= 9)
        .with_member_id(text(joined.member))
        .with_members(members.collect())
}

/// Answers SyncGroup, when the leader has spoken.
pub async fn sync(session: Arc<Session>, version: i16, request: SyncGroupRequest) -> SyncGroupResponse {
    let refuse = |code| SyncGroupResponse::default().with_error_code(code);
    let name = match group_name(&request.group_id) {
        Ok(name) => name,
        Err(code) => return refuse(code),
    };
    let voice = ClassicVoice {
        member: &request.member_id,
        instance: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    let shares = request
        .assignments
        .iter()
        .map(|share| (share.member_id.to_string(), Bytes::copy_from_slice(&share.assignment)))
        .collect();
    let protocol = (request.protocol_type.as_deref(), request.protocol_name.as_deref());
    let outcome = tokio::select! {
        outcome = session.broker().sync_classic(&name, voice, protocol, shares) => outcome,
        () = session.closing() => return refuse(errors::REBALANCE_IN_PROGRESS),
    };
    match outcome {
        Ok(share) => SyncGroupResponse::default()
            .with_protocol_type((version >= 5).then(|| text(share.protocol_type)))
            .with_protocol_name((version >= 5).then(|| text(share.protocol)))
            .with_assignment(share.assignment),
        Err(error) => refuse(errors::group_code(error)),
    }
}

/// Answers Heartbeat.
pub async fn heartbeat(session: Arc<Session>, _version: i16, request: HeartbeatRequest) -> HeartbeatResponse {
    let voice = ClassicVoice {
        member: &request.member_id,
        instance: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    let code = match group_name(&request.group_id) {
        Ok(name) => session.broker().beat_classic(&name, voice).map_or_else(errors::group_code, |()| errors::NONE),
        Err(code) => code,
    };
    HeartbeatResponse::default().with_error_code(code)
}

/// Answers LeaveGroup: one member, or (from version 3 on) several.
pub async fn leave(session: Arc<Session>, version: i16, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let name = match group_name(&request.group_id) {
        Ok(name) => name,
        Err(code) => return LeaveGroupResponse::default().with_error_code(code),
    };
    let leave = |member: &str, instance: Option<&str>| {
        let left = session.broker().leave_classic(&name, member, instance);
        left.map_or_else(errors::group_code, |()| errors::NONE)
    };
    if version < 3 {
        return LeaveGroupResponse::default().with_error_code(leave(&request.member_id, None));
    }
    let left = |member: MemberIdentity| {
        let code = leave(&member.member_id, member.group_instance_id.as_deref());
        MemberResponse::default()
            .with_member_id(member.member_id)
            .with_group_instance_id(member.group_instance_id)
            .with_error_code(code)
    };
    LeaveGroupResponse::default().with_members(request.members.into_iter().map(left).collect())
}
