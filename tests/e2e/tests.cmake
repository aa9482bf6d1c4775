# The program itself on tiny checkpoints: each script is one test; 77 means skipped.
foreach(name videos bad_input full_disk interrupt ledger drop_in)
  add_test(NAME e2e.${name}
    COMMAND ${CMAKE_SOURCE_DIR}/tests/e2e/${name}.sh $<TARGET_FILE:echomimic> ${CMAKE_SOURCE_DIR}/share)
  set_tests_properties(e2e.${name} PROPERTIES LABELS e2e TIMEOUT 600 SKIP_RETURN_CODE 77)
endforeach()
