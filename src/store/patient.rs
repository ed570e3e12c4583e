use headworks_actors::TenantId;

/// The stores that leave a server alone for as long as it asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Patient {
    #[cfg(feature = "webhook")]
    pub(crate) webhooks: Vec<super::WebhookStore>,
}

impl Patient {
    /// Has their servers asked again with the tenant's next attempt; whether one was left alone.
    pub(crate) fn ask_again(&self, tenant: &TenantId) -> bool {
        let _ = tenant;
        #[cfg(feature = "webhook")]
        return self.webhooks.iter().filter(|webhook| webhook.ask_again(tenant)).count() > 0;
        #[cfg(not(feature = "webhook"))]
        false
    }
}
