"""Sample values that OpenAPI shows."""

WEBHOOK = {
    "id": "14",
    "name": "Billing system",
    "callbackUrl": "https://hooks.example.com/webio",
    "events": ["inboundMessage", "messageSend", "deliveryReport"],
    "customValues": False,
    "format": "webio",
    "ordering": "first",
    "state": "active",
    "stateReason": "",
    "failingSince": None,
    "breakerUntil": None,
    "authentication": {"type": "basic", "username": "webio"},
    "clientCertificate": False,
    "retryDelays": None,
    "rateLimit": {"limit": 50, "per": "second"},
    "createdAt": "2026-01-31T09:00:00.000Z",
}
CREATE = {
    "name": "Billing system",
    "callbackUrl": "https://hooks.example.com/webio",
    "events": ["inboundMessage", "messageSend", "deliveryReport"],
    "format": "webio",
    "ordering": "first",
    "authentication": {"type": "basic", "username": "webio", "password": "kept encrypted"},
    "rateLimit": {"limit": 50, "per": "second"},
}
TRY = {
    "statusCode": 200,
    "durationMs": 41,
    "requestBody": '{"type":"inboundMessage","conversationId":"97847"}',
    "responseHeaders": [["content-type", "application/json"]],
    "responseBody": '{"ok":true}',
    "error": "",
    "errorDetail": "",
}
DELIVERY = {
    "id": "9907",
    "webhookId": "14",
    "eventId": "5521",
    "type": "inboundMessage",
    "conversationId": "97847",
    "kind": "event",
    "state": "delivered",
    "nextAttemptAt": None,
    "createdAt": "2026-01-31T09:05:00.010Z",
    "attempts": [{"attemptedAt": "2026-01-31T09:05:00.012Z", "statusCode": 200, "durationMs": 41, "error": ""}],
}
EVENT = {
    "id": "evt_5521",
    "type": "inboundMessage",
    "timestamp": "2026-01-31T09:05:00.000Z",
    "data": {"conversationId": "97847", "sequence": 7, "communicationActionId": "220859", "body": "No I don't"},
}
