//! Who changed what.

use kctl_shared::proto::v1::{AuditRecord, AuditRequest, AuditResponse};

use super::Sources;

impl Sources<'_> {
    /// Records that fit, oldest first.
    pub fn audit(&self, asked: &AuditRequest) -> AuditResponse {
        let audit = &self.state.audit;
        let fits = |wanted: &str, is: &str| wanted.is_empty() || wanted == is;
        let records = audit.recent.iter().filter(|r| {
            let young = asked.since_ms == 0 || self.now.since(r.at) <= asked.since_ms;
            young && fits(&asked.plugin, &r.subject.plugin) && fits(&asked.operation, &r.subject.operation)
        });
        AuditResponse {
            records: records.map(|r| AuditRecord::from(&**r)).collect(),
            count: audit.count,
            head: audit.head.to_string(),
        }
    }
}
