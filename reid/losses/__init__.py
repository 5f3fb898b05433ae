"""Training losses: functions of logits or features, each the mean over the batch in float32."""
