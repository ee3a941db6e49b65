//! Vocabulary of kctl: what two crates or more must agree on, and the only place where protobuf meets the domain.
//!
//! - [`name`], [`digest`], [`package`]: what a plugin, a release and an artifact are.
//! - [`spec`]: what a node should be ([`spec::NodeSpec`]) and what its agent last proved it to be ([`spec::NodeStatus`]).
//! - [`convert`]: domain to protobuf and back; nothing else in the workspace translates the agent protocol.
//! - [`proto`]: the generated messages. The `kctl.v1` views double as the JSON that users see.
//! - [`served`]: what a node's Kong answered, before and since a reload.
//! - [`method`]: how a release gets onto a node; [`nginx`]: what it needs of nginx.
//! - [`fault`], [`endpoint`], [`time`]: errors with stable codes, addresses that may be bound or dialled, timestamps.
//! - [`version`]: which of two versions is the newer one.
//! - [`audit`]: records of changes, and the chain that binds them.
//! - [`bodies`]: whole plugin entities between agent and control plane.
//! - [`codes`]: every stable code and what it means.
//! - [`network`], [`simulated`]: the ports to connections, and to clock and threads.
//! - [`daemon`], [`word`]: how a daemon starts and ends, how a state is shown.

pub mod audit;
pub mod bodies;
pub mod codec;
pub mod codes;
pub mod convert;
pub mod daemon;
pub mod digest;
pub mod endpoint;
pub mod fault;
pub mod method;
pub mod mutant;
pub mod name;
pub mod network;
pub mod nginx;
pub mod package;
pub mod proto;
pub mod served;
pub mod simulated;
pub mod spec;
pub mod time;
pub mod upload;
pub mod version;
pub mod word;
