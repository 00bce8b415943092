/* Keeps librdkafka from asking for more than version 15 of Fetch.
 *
 * From version 16 on a broker may tell with an error who leads the partitions now (KIP-951). Where some of them have no leader, as
 * while a broker starts, librdkafka counts these too but does not fill them in (`rd_kafka_handle_Fetch_metadata_update`), then takes
 * what lies in memory there for numbers of partitions and brokers, and writes by them: the process dies or is damaged.
 * https://github.com/confluentinc/librdkafka/issues/5280, open as of 2.14. Without that hint the library asks for the leaders
 * itself, a request later.
 *
 * The linker puts this in the place of the function of the library (`--wrap`, see `events/build.rs`). */

#include <stdint.h>

enum { FETCH = 1, LAST_WITHOUT_LEADERS = 15 };

int16_t rd_kafka_broker_ApiVersion_supported0(void *broker, int16_t api, int16_t oldest,
                                              int16_t newest, int *features, int lock);

int16_t __wrap_rd_kafka_broker_ApiVersion_supported(void *broker, int16_t api, int16_t oldest,
                                                    int16_t newest, int *features) {
    if (api == FETCH && newest > LAST_WITHOUT_LEADERS)
        newest = LAST_WITHOUT_LEADERS;
    return rd_kafka_broker_ApiVersion_supported0(broker, api, oldest, newest, features, 1);
}
