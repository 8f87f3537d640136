//! What becomes of an epoch when one of its updates fails, or is given up.

use talea_wire::RefusalCode;

use crate::epoch::Epoch;
use crate::error::{ClientError, Result};

/// An update under way: if it does not come to its end, it counts as failed, for nobody knows what it did.
pub(super) struct Updating<'a> {
    epoch: Option<&'a Epoch>,
}

impl<'a> Updating<'a> {
    pub(super) async fn begin(epoch: Option<&'a Epoch>) -> Result<Self> {
        let mut updating = Self { epoch };
        if let Some(epoch) = epoch {
            let entered = epoch.enter_async().await;
            if let Err(error) = entered {
                updating.epoch = None;
                epoch.fail_for(error.cause());
                return Err(error);
            }
        }
        Ok(updating)
    }

    /// A condition that did not hold is an answer, not a failure.
    pub(super) fn end(mut self, error: Option<ClientError>, conditional: bool) -> Result<()> {
        let answered = match &error {
            None => true,
            Some(ClientError::Refused { refusal, .. }) => {
                conditional
                    && matches!(refusal.code, RefusalCode::Exists | RefusalCode::NotFound | RefusalCode::Conflict)
            }
            Some(_) => false,
        };
        if answered {
            self.epoch = None;
        }
        if let (Some(epoch), Some(error)) = (self.epoch, &error) {
            epoch.fail_for(error.cause());
        }
        error.map_or(Ok(()), Err)
    }
}

impl Drop for Updating<'_> {
    fn drop(&mut self) {
        if let Some(epoch) = self.epoch {
            epoch.fail();
        }
    }
}
