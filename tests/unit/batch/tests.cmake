em_test(batch ledger unit fault)
target_link_libraries(test_batch_ledger PRIVATE PkgConfig::SQLITE)
em_test(batch manifest unit fault)
