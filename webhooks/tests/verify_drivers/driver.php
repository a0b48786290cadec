<?php
require __DIR__ . '/genuine.php';
foreach (file('php://stdin', FILE_IGNORE_NEW_LINES) as $line) {
    [$secret, $id, $timestamp, $signature, $body] = explode("\t", $line);
    $headers = ['webhook-id' => $id, 'webhook-timestamp' => $timestamp, 'webhook-signature' => $signature];
    $headers = array_map('base64_decode', array_filter($headers, fn ($value) => $value !== '-'));
    echo genuine($secret, $headers, base64_decode($body)) ? "true\n" : "false\n";
}
