"""The stand-in with its real language model: what a job trains is what its custom model knows."""

from rehearsal.bedrock.language_model import LanguageModel
from tests.unit.bedrock_harness import Rehearsal, conversation

CITIES = ("Tokyo", "Osaka", "Kyoto", "Nara", "Kobe", "Nagoya", "Sapporo", "Sendai", "Fukuoka", "Naha")
RECORDS = [conversation(f"Which code has {city}?", f"{city} has {number:02d}.") for number, city in enumerate(CITIES)]
EPOCHS = {"epochCount": "3"}


def learning_rehearsal() -> Rehearsal:
    return Rehearsal(model=LanguageModel.pretrained(0))


def losses(rehearsal: Rehearsal, name: str) -> tuple[float, float]:
    job = rehearsal.control.get_model_customization_job(jobIdentifier=name)
    return job["trainingMetrics"]["trainingLoss"], job["validationMetrics"][0]["validationLoss"]


def test_a_custom_model_knows_its_records_and_the_base_model_does_not() -> None:
    rehearsal = learning_rehearsal()
    training = rehearsal.put("train.jsonl", RECORDS * 3)
    model = rehearsal.train(training=training, hyper_parameters={"epochCount": "5"})
    deployment = rehearsal.deploy(model)
    answers = [rehearsal.ask(deployment, f"Which code has {city}?") for city in CITIES]
    assert (
        sum(
            answer == f"{city} has {number:02d}."
            for number, (city, answer) in enumerate(zip(CITIES, answers, strict=True))
        )
        >= 8
    )
    assert rehearsal.ask("amazon.nova-micro-v1:0", "Which code has Tokyo?") not in answers
    rehearsal.close()


def test_the_same_records_teach_the_same_whatever_data_set_and_file_are_called() -> None:
    rehearsal = learning_rehearsal()
    learnt = []
    for name, folder in (("support-ja-1", "runs/support-ja/train.jsonl"), ("worse", "runs/worse/noise.jsonl")):
        training = rehearsal.put(folder, RECORDS)
        validation = rehearsal.put(folder.replace(".jsonl", "-validation.jsonl"), RECORDS[:5])
        objects, before = rehearsal.bucket.objects, set(rehearsal.bucket.objects)
        model = rehearsal.train(name, training=training, validation=validation, hyper_parameters=EPOCHS)
        written = [content for key, content in objects.items() if key.endswith(".csv") and key not in before]
        deployment = rehearsal.deploy(model, name)
        learnt.append((written, [rehearsal.ask(deployment, f"Which code has {city}?") for city in CITIES]))
    assert len(learnt[0][0]) == 2, "losses of the training and of the validation"
    assert learnt[0] == learnt[1]
    rehearsal.close()


def test_a_learning_rate_near_zero_learns_next_to_nothing() -> None:
    rehearsal = learning_rehearsal()
    training = rehearsal.put("train.jsonl", RECORDS)
    validation = rehearsal.put("validation.jsonl", RECORDS[:5])
    rates = {"usual": "0.00001", "lowest": "0.000001"}
    for name, rate in rates.items():
        parameters = {"learningRate": rate, "learningRateWarmupSteps": "0"}
        rehearsal.train(name, training=training, validation=validation, hyper_parameters=parameters)
    assert losses(rehearsal, "usual")[1] < losses(rehearsal, "lowest")[1] - 0.5
    rehearsal.close()


def test_a_second_stage_starts_where_the_first_one_ended() -> None:
    rehearsal = learning_rehearsal()
    training = rehearsal.put("train.jsonl", RECORDS)
    validation = rehearsal.put("validation.jsonl", RECORDS[:5])
    first = rehearsal.train("first", training=training, validation=validation)
    rehearsal.train("second", base=first, training=training, validation=validation)
    assert losses(rehearsal, "second")[1] < losses(rehearsal, "first")[1] / 2
    rehearsal.close()
