"""Every attack that the protocol withstands, by name, and the tests that carry it out. A name without a test, or a test that is gone, fails."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
LIARS = "peers_data/test_peers_data_liars.py::test_a_liar_is_named_and_the_content_comes_from_the_honest_peer"
RECORDS = "attacks/test_attacks_records.py"
MEMORY = "attacks/test_attacks_memory.py"
TRUST = "protocol/test_protocol_trust.py"
LINKS = "links/test_links_sockets.py"
HANDSHAKE = "links/test_links_handshake.py"
BEYOND = f"{RECORDS}::test_nothing_that_a_publisher_signs_beyond_its_grant_has_an_effect"
FORGED = f"{RECORDS}::test_whoever_sends_what_no_honest_node_could_is_named_and_nothing_of_it_is_kept"
VILLAIN = "network/test_network_villain.py::test_a_member_that_turns_into_a_villain"

ATTACKS = {
    "corrupt chunk": (LIARS, "network/test_network_liar.py::test_a_member_with_flipped_bytes_is_named_and_the_honest_one_delivers"),
    "truncated chunk": (LIARS,),
    "over-long chunk": (LIARS,),
    "endless chunk": (LIARS, "attacks/test_attacks_content.py::test_a_body_that_stalls_is_given_up"),
    "hostile manifest for a foreign hash": (
        "peers_data/test_peers_data_transfer.py::test_a_false_manifest_of_a_foreign_hash_does_not_keep_the_content_away",
        "store/test_store_partials.py::test_a_manifest_that_lies_about_the_content_leaves_no_trace",
        "catalog/test_catalog_contents.py::test_a_lie_about_the_manifest_is_tried_beside_the_truth",
    ),
    "false have": (LIARS, "peers_data/test_peers_data_liars.py::test_three_offences_ban_for_an_hour"),
    "withheld records": (
        "gossip/test_gossip_alarms.py::test_a_node_that_hands_nothing_on_is_named_by_who_misses_it",
        "gossip/test_gossip_exchange.py::test_while_one_peer_does_not_answer_a_pull_another_is_asked_soon",
    ),
    "replayed head": (
        "gossip/test_gossip_heads.py::test_replayed_and_older_heads_change_nothing",
        "gossip/test_gossip_heads.py::test_an_old_head_told_by_somebody_does_not_make_its_author_linked",
    ),
    "replayed record": ("catalog/test_catalog_journal.py::test_receiving_is_idempotent_and_in_any_order",),
    "replayed token": ("membership/test_membership_joining.py::test_a_token_admits_one_key_and_repeating_is_harmless",),
    "replayed data request": (
        f"{LINKS}::test_a_replayed_data_request_is_refused",
        "peers_data/test_peers_data_transfer.py::test_a_request_proves_itself_and_cannot_be_replayed",
    ),
    "equivocation": (
        "gossip/test_gossip_convergence.py::test_both_halves_of_an_equivocation_reach_everybody",
        "catalog/test_catalog_journal.py::test_equivocation_is_kept_and_voids_what_follows",
        f"{TRUST}::test_behind_a_fork_nothing_counts",
    ),
    "back-dated clock": (BEYOND, f"{TRUST}::test_a_cut_is_not_escaped_by_back_dating", f"{TRUST}::test_nor_by_branching_off_before_it"),
    "future clock": (BEYOND, "protocol/test_protocol_replica.py::test_the_future_moves_no_clock_and_everything_else_does"),
    "unauthorised entry": (BEYOND, f"{RECORDS}::test_what_a_mirror_says_is_kept_by_nobody_whoever_passes_it_on", VILLAIN),
    "prefix escape: a and ab, case, NFD": (BEYOND, f"{TRUST}::test_path_prefixes_go_by_segments_of_the_collision_key"),
    "grant above one's own role": (BEYOND, f"{TRUST}::test_nobody_grants_above_its_role", VILLAIN),
    "junior expelling senior": (
        BEYOND,
        f"{TRUST}::test_a_junior_cannot_expel_its_senior",
        "protocol/test_protocol_trust_laws.py::test_nobody_can_expel_its_senior",
    ),
    "use after revocation": (
        f"{RECORDS}::test_a_revoked_key_adds_nothing_though_an_accomplice_passes_it_on",
        f"{LINKS}::test_a_removed_node_loses_its_links_everywhere_at_once_and_gets_no_new_ones",
        VILLAIN,
    ),
    "forged site": ("attacks/test_attacks_members.py::test_a_token_that_was_rewritten_gives_what_its_maker_promised_and_no_more",),
    "forged URL": (
        f"{MEMORY}::test_addresses_that_nobody_can_dial_end_nothing",
        f"{LINKS}::test_a_data_request_goes_to_the_pinned_certificate_only",
        f"{HANDSHAKE}::test_another_network_another_node_oneself",
    ),
    "cross-network signature": (FORGED, "crypto/test_crypto_envelope.py::test_a_signature_holds_in_its_network_only"),
    "cross-type signature": (FORGED, "crypto/test_crypto_envelope.py::test_a_signature_holds_for_nothing_else"),
    "flood of valid tiny records": (
        VILLAIN,
        f"{MEMORY}::test_what_waits_to_be_stored_holds_back_who_sends_it",
        f"{MEMORY}::test_a_chain_that_branches_without_end_stays_bounded_and_its_author_can_be_removed",
    ),
    "oversize frame": (f"{LINKS}::test_an_oversize_frame_ends_an_established_link_and_nothing_else", f"{LINKS}::test_a_link_request_that_is_none_is_dropped"),
    "oversize list": (f"{MEMORY}::test_a_frame_that_is_no_message_ends_its_link_and_names_its_sender",),
    "oversize header": (
        f"{LINKS}::test_oversize_and_garbage_requests_are_answered_by_an_error_and_closed",
        f"{LINKS}::test_a_connection_that_drips_its_header_is_closed_in_time",
    ),
    "path tricks": (
        FORGED,
        "model/test_model_paths.py::test_refused_path_says_why",
        "downloads/test_downloads_targets.py::test_any_target_is_an_answer_or_an_input_error",
    ),
    "private content by hash": (
        "peers_data/test_peers_data_transfer.py::test_content_is_served_only_where_a_granted_share_names_it",
        "network/test_network_main_job.py::test_a_private_share_is_invisible_to_clients_and_replicates",
    ),
    "handshake relay": (
        f"{LINKS}::test_whoever_stands_in_the_middle_is_found_out",
        f"{HANDSHAKE}::test_relay_that_terminates_tls_is_seen_by_the_answerer",
        f"{HANDSHAKE}::test_a_recorded_handshake_cannot_be_played_again",
    ),
    "downgrade to no TLS": (
        f"{LINKS}::test_whoever_stands_in_the_middle_is_found_out",
        f"{HANDSHAKE}::test_downgrade_to_no_tls_is_seen_by_a_node_that_has_tls",
    ),
    "deeply nested messages": (
        f"{MEMORY}::test_a_frame_that_is_no_message_ends_its_link_and_names_its_sender",
        f"{MEMORY}::test_a_head_and_a_record_of_nested_brackets_are_offences",
    ),
    "made-up origins, shares, heads and frontiers": (
        f"{MEMORY}::test_made_up_origins_shares_and_heads_leave_no_trace",
        "gossip/test_gossip_exchange.py::test_a_hostile_frontier_costs_a_bounded_number_of_pulls",
    ),
    "interests without end": ("peers_data/test_peers_data_bounds.py::test_memory_stays_bounded_when_a_peer_watches_and_seeks_without_end",),
    "requests to join without end": (
        f"{MEMORY}::test_connections_that_say_nothing_make_room_and_more_than_the_bound_are_cut_off",
        f"{MEMORY}::test_requests_to_join_by_nodes_without_number_fill_one_page",
        f"{MEMORY}::test_strangers_who_wait_for_approval_leave_room_for_tokens",
    ),
    "guessed passwords": ("downloads/test_downloads_access.py::test_guessing_is_slowed_and_whoever_knows_is_not",),
    "forged, borrowed and expired credentials": ("downloads/test_downloads_access.py::test_every_credential_at_every_kind_of_share",),
    "forged client address": ("downloads/test_downloads_access.py::test_a_header_of_a_stranger_is_not_believed",),
    "existence of private names by status or work": ("downloads/test_downloads_access.py::test_what_is_forbidden_costs_what_is_absent_costs",),
    "hostile package archives": (
        "downloads/test_downloads_mdm.py::test_a_hostile_archive_is_refused_with_a_reason",
        "downloads/test_downloads_mdm.py::test_any_damage_is_an_answer_or_a_refusal",
    ),
    "hostile property lists": ("munki/test_munki_visibility.py::test_garbage_is_refused_and_nothing_else_happens",),
    "handshakes without end": (
        f"{LINKS}::test_handshakes_under_way_are_bounded",
        "links/test_links_table.py::test_a_peer_that_says_nothing_is_dropped_in_time",
    ),
}


@cache
def defined_in(path: Path) -> frozenset[str]:
    """The names of the tests that a module defines."""
    found = ast.walk(ast.parse(path.read_text()))
    return frozenset(node.name for node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"))


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_carried_out_by_tests_that_exist(attack: str) -> None:
    assert ATTACKS[attack]
    for identifier in ATTACKS[attack]:
        path, _, name = identifier.partition("::")
        assert name in defined_in(TESTS / path), identifier
