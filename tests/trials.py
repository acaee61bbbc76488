# ruff: noqa: E501 (a row is a line)
"""Situations that users reported or are likely to meet, and failed once: (number, what, before, now, its test).

`python tests/test_bad_inputs.py` writes them as tables into docs/bad-inputs.md.
"""

TRIALS = {
    "Folders and files of the corpora": [
        ("1", "SPRSound in the layouts of its later releases", "error", "read", "test_folders::test_layouts_of_sprsound_are_the_same_corpus"),
        ("3", "ICBHI's list of contested devices", "ignored", "a column beside the device in the name", "test_folders::test_the_listed_device_stands_beside_the_named_one"),
        ("4", "a recording under the other device's name", "left out", "read, once", "test_folders::test_layouts_of_icbhi_are_the_same_corpus"),
        ("5", "what macOS adds (`._*`, `.DS_Store`)", "corpus called damaged", "ignored", "test_folders::test_layouts_of_icbhi_are_the_same_corpus"),
        ("6", "a later release of SPRSound", "left out as `KeyError`", "left out for that reason", "test_folders::test_later_releases_of_sprsound_are_set_aside_for_that_reason"),
        ("15", "ICBHI as mirrors pack it; a copy without the split", "error without an address", "read; error with the owners' address", "test_folders::test_a_copy_without_the_split_says_where_it_comes_from"),
        ("20", "an empty or fractional interval", "recording left out", "event left out", "test_bad_inputs::test_bad_input"),
        ("25", "`name (1).wav`, suffixes in capitals, names that are not UTF-8", "left out, traceback", "read or reported", "test_folders::test_copies_and_names_that_are_not_text_cost_only_themselves"),
        ("X1", "a corpus without its training or test part", "\"Aborted.\"", "error that names it", "test_folders::test_patients_that_were_trained_on_are_no_test"),
        ("X11", "quality label `poor quality ` (case, blanks)", "counted as good", "counted as poor", "test_folders::test_poor_quality_is_known_whatever_its_case_and_blanks"),
        ("X15", "one silent channel of two; a clipped recording", "averaged in; no remark", "not used; a remark", "test_pipeline::test_a_silent_channel_is_not_averaged_in"),
    ],
    "Set-up": [
        ("2", "`environment.yml` with conda", "pip's error", "installs the lock", "test_machines::test_pip_can_read_what_conda_gives_it"),
        ("11", "a checkout that was copied or moved with its .venv", "the old folder's code ran", "error that says so", "test_machines::test_an_environment_of_another_folder_is_noticed"),
        ("13", "an installed wheel", "a missing file's name", "a library; commands name the checkout", "test_machines::test_commands_of_an_installed_wheel_name_the_checkout"),
        ("14", "GNU make before 4.3; a Python that is only a placeholder", "no Python found", "the first that runs", "test_machines::test_set_up_takes_the_first_python_that_runs"),
        ("23", "macOS or Linux on ARM, Python 3.12 or 3.13", "pip's error after minutes", "one lock for all; others are refused at once", "test_machines::test_the_lock_is_for_every_supported_machine"),
        ("24", "`make lab` as root", "options of LAB ignored", "options are passed on", "test_book_lab::test_make_lab_passes_flags_on"),
        ("26", "PIP_USER=1", "pip's error", "left out", "test_machines::test_set_up_leaves_the_users_settings_of_pip_and_python_out"),
        ("27", "PYTHONPATH of a cluster's modules", "traceback", "left out", "test_machines::test_set_up_leaves_the_users_settings_of_pip_and_python_out"),
        ("-", "CUDA libraries on a machine without a GPU", "always installed", "left out where the CPU build can be had", "test_machines::test_cuda_libraries_are_installed_where_there_is_a_gpu"),
        ("-", "Windows", "various", "error that names WSL 2", "test_machines::test_windows_is_answered_at_the_first_command"),
    ],
    "Machines and their settings": [
        ("7", "CUDA_VISIBLE_DEVICES=2,3, or names of GPUs", "0 and 1 were used", "those are used", "test_machines::test_workers_take_the_gpus_that_were_given"),
        ("8", "a notebook's kernel dies", "traceback", "one sentence", "test_machines::test_a_dead_kernel_is_answered_in_one_sentence"),
        ("9", "no home directory", "traceback", "error that names QLUNG_CACHE", "test_machines::test_no_home_directory_is_answered"),
        ("10", "another kernel named python3", "traceback", "not used", "test_machines::test_a_notebook_runs_without_the_users_settings"),
        ("12", "a user's matplotlibrc, MPLBACKEND, start-up files", "other pictures or none", "not used", "test_machines::test_a_notebook_runs_without_the_users_settings"),
        ("18", "fp16 skips steps", "infinity in the history, a shorter schedule", "counted, and nothing else", "test_training::test_steps_that_fp16_skips_are_counted_and_nothing_else"),
        ("19", "fewer cores by affinity or Slurm", "one worker per core of the machine", "per usable core", "test_machines::test_cores_are_those_that_may_be_used"),
        ("22", "a file system without locks", "cannot use 'None'", "error that names the file", "test_machines::test_a_file_system_without_locks_is_named"),
        ("28", "a locale that is not UTF-8", "traceback, broken pages", "pages in UTF-8; signs are replaced on the screen", "test_machines::test_a_locale_without_the_signs_loses_only_them"),
        ("30", "WORLD_SIZE left over", "silence, traceback", "error that names it", "test_machines::test_a_left_over_world_size_is_named"),
        ("31", "`compile = true` without a compiler", "a page of traceback", "the setting is gone", "test_training::test_impossible_settings_are_refused"),
        ("X6", "the disk of cache, runs or notebooks is full", "cannot use 'None', traceback", "error that names the file", "test_machines::test_a_full_disk_is_named_for_what_it_is"),
        ("X8", "`qlung sweep --jobs -1`", "waited for ever", "error", "test_machines::test_a_number_of_jobs_below_zero_is_refused"),
        ("X25", "QLUNG_RUNS=out (relative)", "lay where each process ran", "lies in the repository", "test_machines::test_relative_places_lie_in_the_repository"),
    ],
    "Habits and mistakes": [
        ("17", "a reader's own notebooks beside the book's", "run, or stopped the book", "left alone", "test_machines::test_a_readers_own_notebook_is_no_part_of_the_book"),
        ("29", "inside another repository; without git", "the other's commit; \"clean\"", "unknown", "test_machines::test_a_commit_is_recorded_only_if_it_is_ours"),
        ("35", "a class without a clip", "features computed first", "error before them", "test_training::test_a_missing_class_is_found_before_features_are_computed"),
        ("X2", "cosines with another number of columns", "a loss", "error", "test_margins::test_logits_and_a_wrong_number_of_columns_are_refused"),
        ("X3", "scales of 0, -5 or NaN; logits for cosines", "a loss", "error", "test_margins::test_bad_settings_and_qualities_are_refused"),
        ("X5", "a damaged finished run", "traceback", "error that names the folder", "test_machines::test_a_damaged_finished_run_is_named"),
        ("X9", "mistakes in experiments.toml", "some unnoticed or raw", "error that names row and key", "test_corpora::test_what_a_profile_may_hold"),
        ("X10", "mistakes in claims.toml", "\"-\", raw errors", "error that names the claim", "test_machines::test_mistakes_in_the_claims_are_named"),
        ("X21", "a flipped byte in a checkpoint", "not noticed", "the one before it is used", "test_training::test_resume_goes_back_to_a_sound_checkpoint"),
        ("X22", "a data path with $, quotes and spaces through make", "expanded and split", "arrives as typed", "test_machines::test_a_data_folder_arrives_as_it_was_typed"),
        ("X27", "`qlung notebooks 99_nope`", "nothing", "the command is gone: error", "test_machines::test_an_unknown_command_is_an_error"),
        ("-", "two `reproduce` of one profile at once", "each other's files", "the second says so", "test_machines::test_the_second_reproduce_at_once_says_so"),
        ("-", "Ctrl-C", "nothing, or a traceback", "one sentence", "test_machines::test_ctrl_c_leaves_a_sentence"),
        ("-", "a zip download without git", "a commit that is not ours", "works; commit unknown", "test_machines::test_a_zip_of_the_repository_needs_no_git"),
    ],
}  # fmt: skip


def tables() -> str:
    """One Markdown table per group."""
    text = ""
    for group, rows in TRIALS.items():
        text += f"\n### {group}\n\n| trial | situation | before | now | test |\n|---|---|---|---|---|\n"
        for number, what, before, now, test in rows:
            text += f"| {number} | {what} | {before} | {now} | `{test.partition('::')[2]}` |\n"
    return text
